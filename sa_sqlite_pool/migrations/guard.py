"""The guard that refuses calls that would end the transaction of a migration halfway.

It relies on the events of the connection, on the state of the driver, and on what a database
reports about its transaction: an end beneath SQLAlchemy triggers no event.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NoReturn

from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Connection, event
from sqlalchemy.exc import InvalidRequestError, PendingRollbackError

from ..turn.permit import shorten


class MigrationError(CommandError):
    """Raised for a migration that would not be safe.

    The migration was rolled back and the database is as it was, unless the message says that a
    revision ended the transaction itself.
    """


class Guard(ABC):
    """Watches the connection of a migration while revisions run, within its block.

    After the first refusal, everything is refused until the end, even if a revision continues after
    the error. ``alembic`` is Alembic's context of the migration, which has begun its transaction.
    """

    advice: str
    """What the message advises for statements that need no transaction."""

    def __init__(self, connection: Connection, alembic: MigrationContext) -> None:
        self._connection = connection
        self._alembic = alembic
        self._watches = False
        self._refused: Exception | None = None
        self._rolled_back = False
        self._done = "rolled back; the database is as it was"
        self._listeners: list[tuple[str, Callable[..., None]]] = [
            ("commit", self._commits),
            ("rollback", self._rolls_back),
            ("before_cursor_execute", self._executes),
        ]

    @contextmanager
    def one_transaction(self) -> Iterator[None]:
        """Refuse, in the block and at its end, anything that ends the transaction.

        Raise :class:`MigrationError`, after which the transaction must be rolled back.
        """
        connection: Any = self._connection
        alembic: Any = self._alembic
        self._begin()
        for name, listener in self._listeners:
            event.listen(connection, name, listener)
        # `with op.get_bind() as connection` would return the connection to its pool.
        connection.close = self._refuse_close
        of_alembic = alembic.autocommit_block
        alembic.autocommit_block = lambda: self._autocommit_block(of_alembic)
        self._watches = True
        try:
            yield
            self._watches = False
            self._assert_same_transaction()
        except InvalidRequestError as error:
            names_more = self._rolled_back and isinstance(error, PendingRollbackError)  # of a flush
            if self._refused is None or error is self._refused or names_more:
                raise
            # After a refused commit(), SQLAlchemy refuses further calls, without the reason.
            raise self._refused from error
        finally:
            self._watches = False
            del alembic.autocommit_block
            del connection.close
            for name, listener in self._listeners:
                event.remove(connection, name, listener)

    # -- what depends on the database -----------------------------------------------------------

    @abstractmethod
    def _begin(self) -> None:
        """Acquire the locks of the migration within the transaction, and mark the transaction."""

    @abstractmethod
    def _is_in_transaction(self) -> bool:
        """Return whether the transaction is still open, or the next error says why it is not."""

    @abstractmethod
    def _is_same_transaction(self) -> bool:
        """Return whether the open transaction is the one that was marked."""

    @abstractmethod
    def _ends(self, sql: str) -> bool:
        """Return whether a statement ends the transaction or begins one."""

    @abstractmethod
    def _autocommit_block(
        self, of_alembic: Callable[[], AbstractContextManager[None]]
    ) -> AbstractContextManager[None]:
        """Return the replacement for Alembic's own ``autocommit_block()``, or refuse it."""

    # -- refusals -------------------------------------------------------------------------------

    def _commits(self, _connection: Connection) -> None:
        if self._watches:
            self._refuse("commit()")

    def _rolls_back(self, _connection: Connection) -> None:
        # SQLAlchemy also rolls back after a failed flush, whose error must not be hidden, so the
        # next call is refused instead.
        if self._watches and self._refused is None:
            self._refused, self._rolled_back = self._refusal("rollback()"), True

    def _refuse_close(self) -> NoReturn:
        self._refuse("close()")

    def _executes(self, _connection: Connection, _cursor: object, sql: str, *_more: object) -> None:
        if self._watches:
            self._assert_in_transaction()  # otherwise this statement would be committed on its own
            if self._ends(sql):
                self._refuse(shorten(sql))

    def _assert_same_transaction(self) -> None:
        """Raise if another transaction was begun or something was refused."""
        self._assert_in_transaction()
        if not self._is_same_transaction():
            self._refused = _ended()
            raise self._refused

    def _assert_in_transaction(self) -> None:
        if self._refused is None and not self._is_in_transaction():
            self._refused = _ended()
        if self._refused is not None:
            raise self._refused

    def _refuse(self, what: str) -> NoReturn:
        self._refused = self._refusal(what)
        raise self._refused

    def _refusal(self, what: str) -> MigrationError:
        return refusal(what, self._done, self.advice)


def refusal(what: str, done: str, advice: str) -> MigrationError:
    """Return the error for a revision that calls for ``what``; ``done`` tells the consequence."""
    return MigrationError(
        f"{done}: a revision uses {what}, and all revisions of a command run in one transaction, "
        f"so that none is left half done; remove it, and run what needs no transaction {advice}"
    )


def _ended() -> MigrationError:
    return MigrationError(
        "a revision ended the transaction on the driver's connection, with commit(), rollback(), "
        "executescript() or a statement: what came before it may have been committed, including "
        "the versions of earlier revisions, and what came after was refused or rolled back. Check "
        "the database, remove the call from the revision, and execute SQL with op.execute()"
    )
