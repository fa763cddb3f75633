"""Migrations on PostgreSQL: the same ``env.py``, and Alembic's usual procedure.

SQLite requires foreign keys to be off; PostgreSQL does not. And on PostgreSQL, a revision may use
``autocommit_block()``, for CREATE INDEX CONCURRENTLY. Nothing else may end its transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, final

from alembic import context
from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError

from ..errors import WriteTimeout
from ..postgresql.sqlstate import LOCK_NOT_AVAILABLE, sqlstate_of
from ..servers.drivers.choosing import driver_of
from ..servers.rules.functions import ends_or_begins
from ..servers.turn import LIMITS, TRY, WAIT
from .guard import Guard

# In a READ COMMITTED transaction, reads after the wait see what was committed during the wait.
_ISOLATION = "READ COMMITTED"

# This does not change during a transaction, and differs for each transaction of a session:
# https://www.postgresql.org/docs/current/functions-datetime.html#FUNCTIONS-DATETIME-CURRENT
_BEGUN_AT = "SELECT extract(epoch FROM transaction_timestamp())"


def is_server(url: URL) -> bool:
    """Return whether ``url`` is that of a server on which migrations can run."""
    return url.get_backend_name() == "postgresql"


def migrate_on_server(connection: Connection, options: dict[str, Any], seconds: float) -> None:
    """Run all requested revisions in one transaction, which holds the write turn.

    Any number of processes may call this at once: the others wait at most ``seconds`` seconds, then
    check the version. Raise :class:`~sa_sqlite_pool.WriteTimeout` if the turn is not acquired, and
    :class:`MigrationError` if a revision would end the transaction except by
    ``autocommit_block()``.
    """
    connection = connection.execution_options(statement_timeout=None, isolation_level=_ISOLATION)
    context.configure(connection=connection, transaction_per_migration=False, **options)
    guard = ServerGuard(connection, seconds)
    try:
        with context.begin_transaction(), guard.one_transaction():
            context.run_migrations()
    finally:
        connection.rollback()  # ends what SQLAlchemy leaves behind after a refused COMMIT


@final
class ServerGuard(Guard):
    """Lets ``autocommit_block()`` end the transaction, and begins another with the write turn.

    It waits at most ``seconds`` seconds for each turn.
    """

    advice = (
        "(CREATE INDEX CONCURRENTLY, VACUUM) within `with op.get_context().autocommit_block():`"
    )

    def __init__(self, connection: Connection, seconds: float) -> None:
        super().__init__(connection, context.get_context())
        self._seconds = seconds
        self._begun_at: Any = None

    def _begin(self) -> None:
        _take_the_turn(self._connection, self._seconds)
        self._begun_at = self._read_begun_at()

    def _read_begun_at(self) -> Any:
        return self._connection.exec_driver_sql(_BEGUN_AT).scalar()

    def _is_same_transaction(self) -> bool:
        return bool(self._read_begun_at() == self._begun_at)

    def _is_in_transaction(self) -> bool:
        connection = self._connection
        if connection.closed or connection.invalidated or not connection.dialect.is_async:
            return True  # a broken connection has an error of its own
        adapted: Any = connection.connection.dbapi_connection
        driver = driver_of(connection.dialect)
        if driver.is_broken(adapted):
            return True
        # SQLAlchemy's adapter for asyncpg does not notice a COMMIT that asyncpg executes as SQL.
        return driver.in_transaction(adapted) and driver.has_open(adapted)

    def _ends(self, sql: str) -> bool:
        return ends_or_begins(sql)

    def _commits(self, connection: Connection) -> None:
        if self._watches:
            # After an error here, SQLAlchemy considers the transaction ended, and would return the
            # connection as it is.
            connection.dialect.do_rollback(connection.connection)
        super()._commits(connection)

    @contextmanager
    def _autocommit_block(
        self, of_alembic: Callable[[], AbstractContextManager[None]]
    ) -> Iterator[None]:
        """Let Alembic commit, for statements without a transaction, then begin another one."""
        self._assert_same_transaction()
        self._watches = False
        self._done = (
            "rolled back to the last autocommit_block(), which committed what came before it"
        )
        try:
            with of_alembic():
                yield
        except Exception:
            # The revision may continue after the error: drop an invalid index, and retry.
            try:
                self._begin()
            except Exception as error:  # for example, because the connection is broken
                self._refused = error
            self._watches = True
            raise
        self._begin()
        self._watches = True


def _take_the_turn(connection: Connection, seconds: float) -> None:
    """Acquire the lock of the write turn, which is released when the transaction ends.

    With ``writes="in turn"``, BEGIN has acquired it already, which does not matter.
    """
    taken, *before = connection.exec_driver_sql(TRY).one()
    if taken:
        return
    # 0 would mean no limit; a database's own limit for statements does not apply to this wait.
    connection.exec_driver_sql(LIMITS.format(max(1, int(seconds * 1000)), 0))
    try:
        connection.exec_driver_sql(WAIT)
    except DBAPIError as error:
        if sqlstate_of(error) != LOCK_NOT_AVAILABLE:
            raise
        raise WriteTimeout(
            f"waited {seconds:.2f} s for the write turn of {connection.engine.url.host}, which "
            "another process holds; check pg_stat_activity, or raise timeout",
            error.orig,
        ) from error
    connection.exec_driver_sql(LIMITS.format(*before))
