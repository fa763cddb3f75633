"""What the application's options may not change about a transaction.

A reader cannot write. With the turn, the isolation level is READ COMMITTED: under REPEATABLE READ
and SERIALIZABLE, PostgreSQL takes the snapshot of a transaction for its first statement. That is
the one that waits for the turn, so what the previous holder has committed would not be seen.
https://www.postgresql.org/docs/current/transaction-iso.html
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, event

from ...errors import ConfigurationError
from ..endings import replace

_IN_TURN = frozenset({"READ COMMITTED", "READ UNCOMMITTED"})  # the same to PostgreSQL


def keep_read_only(engine: Engine) -> None:
    """Make all transactions of ``engine`` READ ONLY, whatever options they have.

    Both drivers say so in their BEGIN; nothing is sent here. AUTOCOMMIT has no BEGIN, and is
    refused at that point with :class:`~sa_sqlite_pool.ConfigurationError`.
    """
    dialect: Any = engine.dialect
    set_readonly, begin = dialect.set_readonly, dialect.do_begin

    def set_always(connection: Any, _value: bool) -> None:
        # SQLAlchemy calls this for the option postgresql_readonly, and at check-in to reset it.
        set_readonly(connection, True)

    def connect(dbapi_connection: Any, _record: object) -> None:
        set_readonly(dbapi_connection, True)

    def do_begin(proxied: Any) -> None:
        if proxied.dbapi_connection.autocommit:
            raise ConfigurationError(
                'isolation_level="AUTOCOMMIT" on the reader engine: without a transaction nothing '
                'keeps it from writing; leave it out, or set "READ COMMITTED", where each '
                "statement has a snapshot of its own, or use the writer engine"
            )
        begin(proxied)

    event.listen(engine, "connect", connect)
    replace(dialect, set_readonly=set_always, do_begin=do_begin)


def assert_may_take_turns(connection: Any) -> None:
    """Raise :class:`~sa_sqlite_pool.ConfigurationError` if the level does not suit the turn.

    ``connection`` is SQLAlchemy's adapted connection before its BEGIN; the server is not queried.
    """
    level = level_of(connection)
    if level is not None and level not in _IN_TURN:
        raise ConfigurationError(
            f'isolation_level="{level}" with writes="in turn": the snapshot would be taken before '
            "the turn comes, without what the previous holder has committed; leave it out (READ "
            'COMMITTED is right in the turn), or make the ServerDatabase with writes="serializable"'
        )


def level_of(connection: Any) -> str | None:
    """Return the SQL name of the next transaction's isolation level, None for the server's own."""
    level = getattr(connection, "isolation_level", None)  # asyncpg's, a string
    if level is None:
        level = getattr(connection.driver_connection, "isolation_level", None)  # psycopg's, an enum
    return None if level is None else str(getattr(level, "name", level)).upper().replace("_", " ")
