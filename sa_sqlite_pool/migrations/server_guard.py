"""What would end the transaction of a migration on a server half way, and is refused.

As on SQLite, and by what a server knows: the events of the connection, the driver's state, and the
time at which PostgreSQL has begun the transaction. ``autocommit_block()`` may end it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NoReturn, final

from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, event
from sqlalchemy.exc import InvalidRequestError, PendingRollbackError

from ..servers.drivers.choosing import driver_of
from ..servers.rules.functions import ends_or_begins
from ..turn.permit import shorten
from .transaction import MigrationError

# It does not change while a transaction lasts, and no two of a session have the same:
# https://www.postgresql.org/docs/current/functions-datetime.html#FUNCTIONS-DATETIME-CURRENT
_BEGUN_AT = "SELECT extract(epoch FROM transaction_timestamp())"


@final
class Guard:
    """Watches the connection of a migration while revisions run, within its block.

    What it has refused once it refuses until the end, also where a revision goes on after the
    error.

    :param alembic: Alembic's context of the migration, which has begun its transaction
    :param take_the_turn: takes the write turn, for this transaction and for each that comes after
        an ``autocommit_block()``
    """

    def __init__(
        self, connection: Connection, alembic: MigrationContext, take_the_turn: Callable[[], None]
    ) -> None:
        self._connection = connection
        self._alembic = alembic
        self._take_the_turn = take_the_turn
        self._blocks = 0  # that have committed what came before them
        self._watches = False
        self._refused: Exception | None = None
        self._rolled_back = False
        self._begun_at: Any = None

    @contextmanager
    def one_transaction(self) -> Iterator[None]:
        """Refuse in the block, and at its end, what ends the transaction; see above.

        Raise :class:`MigrationError`, after which the transaction is to be rolled back.
        """
        connection: Any = self._connection
        listeners: dict[str, Callable[..., None]] = {
            "commit": self._commits,
            "rollback": self._rolls_back,
            "before_cursor_execute": self._executes,
        }
        self._begin()
        for name, listener in listeners.items():
            event.listen(connection, name, listener)
        # `with op.get_bind() as connection` would give back the connection.
        connection.close = self._refuse_close
        of_alembic = self._alembic.autocommit_block
        self._alembic.autocommit_block = (  # type: ignore[method-assign]
            lambda: self._autocommit_block(of_alembic())
        )
        try:
            yield
            self._assert_same_transaction()
        except InvalidRequestError as error:
            names_more = self._rolled_back and isinstance(error, PendingRollbackError)  # of a flush
            if self._refused is None or error is self._refused or names_more:
                raise
            # SQLAlchemy refuses what follows a refused commit(), too, and does not know why.
            raise self._refused from error
        finally:
            self._watches = False
            del self._alembic.autocommit_block
            del connection.close
            for name, listener in listeners.items():
                event.remove(connection, name, listener)

    # -- its beginnings -------------------------------------------------------------------------

    def _begin(self) -> None:
        self._take_the_turn()
        self._begun_at = self._read_begun_at()
        self._watches = True

    def _read_begun_at(self) -> Any:
        return self._connection.exec_driver_sql(_BEGUN_AT).scalar()

    @contextmanager
    def _autocommit_block(self, block: AbstractContextManager[None]) -> Iterator[None]:
        """Let Alembic commit, for what needs no transaction, and begin anew."""
        self._assert_same_transaction()
        self._watches = False
        self._blocks += 1
        try:
            with block:
                yield
        except Exception:
            # The revision may go on after it: drop an index that is invalid, and try again.
            self._begin_after_an_error()
            raise
        self._begin()

    def _begin_after_an_error(self) -> None:
        try:
            self._begin()
        except Exception as error:  # such as that the connection is broken
            self._refused, self._watches = error, True

    # -- what is refused ------------------------------------------------------------------------

    def _commits(self, connection: Connection) -> None:
        if self._watches:
            # After an error here SQLAlchemy takes the transaction for ended, and would give the
            # connection back as it is.
            connection.dialect.do_rollback(connection.connection)
            self._refuse("commit()")

    def _rolls_back(self, _connection: Connection) -> None:
        # SQLAlchemy does so, too, after a failed flush, whose error must not be hidden; so what
        # comes next is refused.
        if self._watches and self._refused is None:
            self._refused, self._rolled_back = self._refusal("rollback()"), True

    def _refuse_close(self) -> NoReturn:
        self._refuse("close()")

    def _executes(self, _connection: Connection, _cursor: object, sql: str, *_more: object) -> None:
        if not self._watches:
            return
        self._assert_in_transaction()
        if ends_or_begins(sql):
            self._refuse(shorten(sql))

    def _assert_same_transaction(self) -> None:
        """Raise if another transaction was begun, and if something was refused."""
        self._assert_in_transaction()
        if self._read_begun_at() != self._begun_at:
            self._refused = _ended()
            raise self._refused

    def _assert_in_transaction(self) -> None:
        """Raise if the next statement would begin a transaction, or be one by itself."""
        if self._refused is not None:
            raise self._refused
        if not _is_in_transaction(self._connection):
            self._refused = _ended()
            raise self._refused

    def _refuse(self, what: str) -> NoReturn:
        self._refused = self._refusal(what)
        raise self._refused

    def _refusal(self, what: str) -> MigrationError:
        done = "rolled back, the database is as it was"
        if self._blocks:
            done = "rolled back to the last autocommit_block(), which has committed what was before"
        return MigrationError(
            f"{done}: a revision calls for {what}, and all revisions of a command are one "
            "transaction, so that none is left half done; take it out, and do what needs no "
            "transaction (CREATE INDEX CONCURRENTLY, VACUUM) within "
            "`with op.get_context().autocommit_block():`"
        )


def _is_in_transaction(connection: Connection) -> bool:
    """Return whether the transaction goes on; True also where the driver does not tell."""
    if connection.closed or connection.invalidated or not connection.dialect.is_async:
        return True  # a broken connection has an error of its own
    adapted: Any = connection.connection.dbapi_connection
    driver = driver_of(connection.dialect)
    if driver.is_broken(adapted):
        return True
    # SQLAlchemy's adapter of asyncpg does not notice a COMMIT that asyncpg is told to execute.
    return driver.in_transaction(adapted) and driver.has_open(adapted)


def _ended() -> MigrationError:
    return MigrationError(
        "a revision has ended the transaction on the driver's connection, by commit(), rollback() "
        "or a statement: what came before it may have been committed, with the versions of the "
        "revisions before, and what came after was refused or rolled back. Look at the database, "
        "take the call out of the revision, and execute SQL by op.execute()"
    )
