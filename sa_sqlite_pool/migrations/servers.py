"""Migrations on PostgreSQL: the same ``env.py``, and Alembic's ordinary way.

SQLite needs foreign keys to be off; PostgreSQL does not. And a revision may have
``autocommit_block()`` there, for CREATE INDEX CONCURRENTLY. Nothing else ends its transaction.
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

# In a transaction of READ COMMITTED what is read after the wait shows what was done meanwhile.
_ISOLATION = "READ COMMITTED"

# It does not change while a transaction lasts, and no two of a session have the same:
# https://www.postgresql.org/docs/current/functions-datetime.html#FUNCTIONS-DATETIME-CURRENT
_BEGUN_AT = "SELECT extract(epoch FROM transaction_timestamp())"


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
    context.configure(connection=connection, transaction_per_migration=False, **options)
    guard = ServerGuard(connection, seconds)
    try:
        with context.begin_transaction(), guard.one_transaction():
            context.run_migrations()
    finally:
        connection.rollback()  # what SQLAlchemy has left of a COMMIT that was refused


@final
class ServerGuard(Guard):
    """Lets ``autocommit_block()`` end the transaction, and begins another with the write turn.

    It waits for at most ``seconds`` seconds for each turn.
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
        # SQLAlchemy's adapter of asyncpg does not notice a COMMIT that asyncpg is told to execute.
        return driver.in_transaction(adapted) and driver.has_open(adapted)

    def _ends(self, sql: str) -> bool:
        return ends_or_begins(sql)

    def _commits(self, connection: Connection) -> None:
        if self._watches:
            # After an error here SQLAlchemy takes the transaction for ended, and would give the
            # connection back as it is.
            connection.dialect.do_rollback(connection.connection)
        super()._commits(connection)

    @contextmanager
    def _autocommit_block(
        self, of_alembic: Callable[[], AbstractContextManager[None]]
    ) -> Iterator[None]:
        """Let Alembic commit, for what needs no transaction, and begin anew."""
        self._assert_same_transaction()
        self._watches = False
        self._done = (
            "rolled back to the last autocommit_block(), which committed what came before it"
        )
        try:
            with of_alembic():
                yield
        except Exception:
            # The revision may go on after it: drop an index that is invalid, and try again.
            try:
                self._begin()
            except Exception as error:  # such as that the connection is broken
                self._refused = error
            self._watches = True
            raise
        self._begin()
        self._watches = True


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
            "another process holds; check pg_stat_activity, or raise timeout",
            error.orig,
        ) from error
    connection.exec_driver_sql(LIMITS.format(*before))
