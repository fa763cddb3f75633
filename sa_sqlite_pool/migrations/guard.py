"""What would end the transaction of a migration half way, and is refused.

It is known by the events of the connection, by the state of the driver, and by what a database
tells of its transaction: an end beneath SQLAlchemy has no event.
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
    """Error of a migration that would not be safe.

    The migration was rolled back and the database is as it was, unless the message says that a
    revision has ended the transaction itself.
    """


class Guard(ABC):
    """Watches the connection of a migration while revisions run, within its block.

    What it has refused once it refuses until the end, also where a revision goes on after the
    error. ``alembic`` is Alembic's context of the migration, which has begun its transaction.
    """

    advice: str
    """What to do with what needs no transaction."""

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
        """Refuse in the block, and at its end, what ends the transaction.

        Raise :class:`MigrationError`, after which the transaction is to be rolled back.
        """
        connection: Any = self._connection
        alembic: Any = self._alembic
        self._begin()
        for name, listener in self._listeners:
            event.listen(connection, name, listener)
        # `with op.get_bind() as connection` would give back the connection.
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
            # SQLAlchemy refuses what follows a refused commit(), too, and does not know why.
            raise self._refused from error
        finally:
            self._watches = False
            del alembic.autocommit_block
            del connection.close
            for name, listener in self._listeners:
                event.remove(connection, name, listener)

    # -- what a database has to say -------------------------------------------------------------

    @abstractmethod
    def _begin(self) -> None:
        """Take the locks of the migration, in the transaction, and mark it."""

    @abstractmethod
    def _is_in_transaction(self) -> bool:
        """Return whether the transaction goes on, or the next error says why it does not."""

    @abstractmethod
    def _is_same_transaction(self) -> bool:
        """Return whether the transaction that is open is the one that was marked."""

    @abstractmethod
    def _ends(self, sql: str) -> bool:
        """Return whether a statement ends the transaction, or begins one."""

    @abstractmethod
    def _autocommit_block(
        self, of_alembic: Callable[[], AbstractContextManager[None]]
    ) -> AbstractContextManager[None]:
        """Return what takes the place of Alembic's own ``autocommit_block()``, or refuse it."""

    # -- what is refused ------------------------------------------------------------------------

    def _commits(self, _connection: Connection) -> None:
        if self._watches:
            self._refuse("commit()")

    def _rolls_back(self, _connection: Connection) -> None:
        # SQLAlchemy does so, too, after a failed flush, whose error must not be hidden; so what
        # comes next is refused.
        if self._watches and self._refused is None:
            self._refused, self._rolled_back = self._refusal("rollback()"), True

    def _refuse_close(self) -> NoReturn:
        self._refuse("close()")

    def _executes(self, _connection: Connection, _cursor: object, sql: str, *_more: object) -> None:
        if self._watches:
            self._assert_in_transaction()  # or this statement would be committed by itself
            if self._ends(sql):
                self._refuse(shorten(sql))

    def _assert_same_transaction(self) -> None:
        """Raise if another transaction was begun, and if something was refused."""
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
    """Return the error of a revision that calls for ``what``; ``done`` is what was done of it."""
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
