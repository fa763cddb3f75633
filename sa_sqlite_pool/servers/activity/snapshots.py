"""A reader's connection that is checked out shows what its ``fresh()`` block has seen meanwhile.

A checkout goes to a server that shows it. What was written after that is looked for before each
snapshot is taken: by the first statement of a transaction, and under READ COMMITTED by each.
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

# PlannedStmtRequiresSnapshot() in PostgreSQL's src/backend/tcop/pquery.c. ROLLBACK, where it ends
# no transaction, is TO a savepoint.
_TAKE_NONE = frozenset({"lock", "release", "rollback", "savepoint", "set", "show"})


def keep_fresh(engine: Engine, owner: object) -> None:
    """Have connections of a reader's ``engine`` show what is seen in blocks of ``owner``.

    Before BEGIN the server is asked on the connection itself; later only where something was seen
    between BEGIN and the first statement, on another one, since the question would take the
    snapshot. If all is shown that is to be seen, as far as is known, nothing is sent.
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
        if ends_transaction(words):  # what comes next takes another
            proxied.info.pop(_HAS_SNAPSHOT, None)
            return
        had_one = proxied.info.get(_HAS_SNAPSHOT, False)
        if not had_one and _TAKE_NONE.isdisjoint(words[:1]):
            proxied.info[_HAS_SNAPSHOT] = True
        if ";" in sql and any(map(ends_transaction, boundaries(sql))):  # behind others
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
