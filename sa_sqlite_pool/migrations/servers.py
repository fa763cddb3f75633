"""Migrations on PostgreSQL: the same ``env.py``, and Alembic's ordinary way.

SQLite needs foreign keys to be off; PostgreSQL does not. And a revision may have
``autocommit_block()`` there, for CREATE INDEX CONCURRENTLY. Nothing else ends its transaction.
"""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError

from ..errors import WriteTimeout
from ..postgresql.sqlstate import LOCK_NOT_AVAILABLE, sqlstate_of
from ..servers.turn import LIMITS, TRY, WAIT
from .server_guard import Guard

_ONE_TRANSACTION: dict[str, Any] = {"transaction_per_migration": False}

# In a transaction of READ COMMITTED what is read after the wait shows what was done meanwhile.
_ISOLATION = "READ COMMITTED"


def is_server(url: URL) -> bool:
    """Return whether a URL is one of a server that migrations are run on."""
    return url.get_backend_name() == "postgresql"


def migrate_on_server(connection: Connection, options: dict[str, Any], seconds: float) -> None:
    """Run all revisions that Alembic was asked for in one transaction, which has the write turn.

    Any number of processes may do so: the others wait for at most ``seconds`` seconds, and then
    look at the version. Raise :class:`~sa_sqlite_pool.WriteTimeout` if the turn does not come, and
    :class:`MigrationError` if a revision would end the transaction, but by ``autocommit_block()``.
    """
    connection = connection.execution_options(statement_timeout=None, isolation_level=_ISOLATION)
    context.configure(**{**options, "connection": connection}, **_ONE_TRANSACTION)
    guard = Guard(connection, context.get_context(), lambda: _take_the_turn(connection, seconds))
    try:
        with context.begin_transaction(), guard.one_transaction():
            context.run_migrations()
    finally:
        connection.rollback()  # what SQLAlchemy has left of a COMMIT that was refused


def print_sql_of_server(url: URL, options: dict[str, Any]) -> None:
    """Print what a migration would execute (``--sql``)."""
    named = {"paramstyle": "named"}
    context.configure(
        **{**options, "url": url, "literal_binds": True, "dialect_opts": named}, **_ONE_TRANSACTION
    )
    with context.begin_transaction():
        context.run_migrations()


def _take_the_turn(connection: Connection, seconds: float) -> None:
    """Take the lock of the write turn, which ends with the transaction.

    With ``writes="in turn"`` its BEGIN has taken it already, which is no matter.
    """
    taken, *before = connection.exec_driver_sql(TRY).one()
    if taken:
        return
    # 0 would be no limit; a limit of statements, which a database may have, is none of this wait.
    connection.exec_driver_sql(LIMITS.format(max(1, int(seconds * 1000)), 0))
    try:
        connection.exec_driver_sql(WAIT)
    except DBAPIError as error:
        if sqlstate_of(error) != LOCK_NOT_AVAILABLE:
            raise
        raise WriteTimeout(
            f"waited {seconds:.2f} s for the write turn of {connection.engine.url.host}, which "
            "another process has; look at pg_stat_activity, or raise timeout",
            error.orig,
        ) from error
    connection.exec_driver_sql(LIMITS.format(*before))
