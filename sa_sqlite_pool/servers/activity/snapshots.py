"""Keep a reader's checked-out connection up to date with what its ``fresh()`` block has seen.

A checkout uses a server that shows it already. Later writes are looked for before each snapshot:
the first statement of a transaction takes one, and under READ COMMITTED every statement does.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError

from ...freshness import seen_by
from ...postgresql.statements import boundaries, ends_transaction, first_head
from ..connections.records import server_behind
from ..drivers.choosing import driver_of
from ..endings import replace
from ..pool import pool_of
from ..replicas import ReplicaPool
from ..rules.levels import level_of

_HAS_SNAPSHOT = "sa_sqlite_pool_has_snapshot"

# PlannedStmtRequiresSnapshot() in PostgreSQL's src/backend/tcop/pquery.c. A ROLLBACK that ends no
# transaction is ROLLBACK TO a savepoint.
_TAKE_NONE = frozenset({"lock", "release", "rollback", "savepoint", "set", "show"})


def keep_fresh(engine: Engine, owner: object) -> None:
    """Make connections of a reader's ``engine`` show what blocks of ``owner`` have seen.

    Before BEGIN, the server is queried on the connection itself; later, only if something was seen
    between BEGIN and the first statement, and on another connection, since the query would take
    the snapshot. If, as far as is known, the server shows everything required, nothing is sent.
    """
    dialect, driver = engine.dialect, driver_of(engine.dialect)
    begin = dialect.do_begin

    def do_begin(proxied: Any) -> None:
        proxied.info.pop(_HAS_SNAPSHOT, None)
        catch_up(proxied)
        begin(proxied)

    def executes(
        connection: Connection, _cursor: Any, sql: str, parameters: Any, *_more: object
    ) -> None:
        proxied: Any = connection.connection
        words = first_head(sql)
        if ends_transaction(words):  # the next statement takes another snapshot
            proxied.info.pop(_HAS_SNAPSHOT, None)
            return
        had_one = proxied.info.get(_HAS_SNAPSHOT, False)
        if not had_one and _TAKE_NONE.isdisjoint(words[:1]):
            proxied.info[_HAS_SNAPSHOT] = True
        if ";" in sql and any(map(ends_transaction, boundaries(sql))):  # after other statements
            proxied.info.pop(_HAS_SNAPSHOT, None)
        if had_one and level_of(proxied.dbapi_connection) != "READ COMMITTED":
            return
        try:
            catch_up(proxied)
        except dialect.loaded_dbapi.Error as error:
            has_ended = driver.is_broken(proxied.dbapi_connection)
            if has_ended:
                connection.invalidate(error)
            raise DBAPIError.instance(
                *(sql, parameters, error, dialect.loaded_dbapi.Error),
                connection_invalidated=has_ended,
                dialect=dialect,
            ) from error

    def catch_up(proxied: Any) -> None:
        if (seen := seen_by(owner)) is not None:
            pool = pool_of(engine, proxied)
            assert isinstance(pool, ReplicaPool)
            if (server := server_behind(proxied)) is not None:
                pool.catch_up(server, proxied.dbapi_connection, seen)

    replace(dialect, do_begin=do_begin)
    event.listen(engine, "before_cursor_execute", executes, insert=True)
