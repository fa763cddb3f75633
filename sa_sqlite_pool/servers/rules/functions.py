"""A function passed to ``run_read()`` or ``run_write()`` must not end its transaction.

It may run again, and what it had committed itself would then be written twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, final

from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError, InvalidRequestError, PendingRollbackError
from sqlalchemy.orm import Session

from ...errors import ClosureError
from ...functions import refused_inside, rolled_back_inside
from ...postgresql.statements import begins_transaction, boundaries, ends_transaction
from ...turn.permit import shorten
from ..drivers.choosing import driver_of

T = TypeVar("T")


def guarded(call: Callable[[Any], T]) -> Callable[[Any], T]:
    """Wrap ``call``, which gets a session or a connection, so that it cannot end the transaction.

    Raise :class:`~sa_sqlite_pool.ClosureError` where it tries to, from what it executes after a
    rollback, and in any case at its end. It may use savepoints as it likes.
    """
    return lambda target: _Guard().call(call, target)


@final
class _Guard:
    """Watches the connections of a function while it runs, and keeps the first misuse."""

    def __init__(self) -> None:
        self._misuse: ClosureError | None = None
        self._rolled_back = False
        self._runs = True
        self._used: set[Connection] = set()

    def call(self, function: Callable[[Any], T], target: Session | Connection) -> T:
        if isinstance(target, Session):
            event.listen(target, "after_begin", self._session_begins)
        else:
            self._watch(target)
        try:
            result = function(target)
            self._assert_not_ended()
        except DBAPIError as error:  # a retry would write again what is committed
            self._assert_not_ended(error)
            raise
        except InvalidRequestError as error:
            names_more = self._rolled_back and isinstance(error, PendingRollbackError)  # of a flush
            if self._misuse is None or error is self._misuse or names_more:
                raise
            raise self._misuse from error  # SQLAlchemy refuses what follows it, too
        finally:
            self._runs = False
        if self._misuse is not None:
            raise self._misuse
        return result

    def _watch(self, connection: Connection) -> None:
        for name, listener in (
            ("begin", self._begins),
            ("commit", self._commits),
            ("rollback", self._rolls_back),
            ("before_cursor_execute", self._executes),
        ):
            event.listen(connection, name, listener)

    def _session_begins(self, _session: Session, _: object, connection: Connection) -> None:
        if self._runs:
            self._refuse_autocommit(connection)
            self._watch(connection)

    def _begins(self, connection: Connection) -> None:
        if self._runs:
            if self._misuse is not None:
                raise self._misuse
            self._refuse_autocommit(connection)

    def _refuse_autocommit(self, connection: Connection) -> None:
        adapted: Any = connection.connection.dbapi_connection
        if adapted.autocommit:
            self._refuse("isolation_level='AUTOCOMMIT'")

    def _commits(self, connection: Connection) -> None:
        if self._runs:
            # After an error here, SQLAlchemy considers the transaction ended, and would return the
            # connection to the pool as it is.
            connection.engine.dialect.do_rollback(connection.connection)
            self._refuse("commit()")

    def _rolls_back(self, connection: Connection) -> None:
        # SQLAlchemy also rolls back after a failed flush, whose error must not be hidden, so the
        # next operation is refused instead. If there is no transaction, its BEGIN has failed.
        if self._runs and self._misuse is None and connection.in_transaction():
            self._misuse, self._rolled_back = rolled_back_inside(), True

    def _executes(self, connection: Connection, _cursor: object, sql: str, *_more: object) -> None:
        if not self._runs:
            return
        if ends_or_begins(sql):
            self._refuse(shorten(sql))
        self._assert_not_ended()
        self._used.add(connection)

    def _assert_not_ended(self, error: Exception | None = None) -> None:
        """Raise if a transaction in which a statement was executed was ended through the driver."""
        for used in self._used:
            if used.closed or used.invalidated or self._misuse is not None:
                continue
            adapted = used.connection.dbapi_connection
            driver = driver_of(used.dialect)
            if not (driver.in_transaction(adapted) and driver.has_open(adapted)):
                self._misuse = refused_inside("commit() or rollback() of the driver's connection")
                raise self._misuse from error

    def _refuse(self, what: str) -> None:
        self._misuse = refused_inside(what)
        raise self._misuse


def ends_or_begins(sql: str) -> bool:
    """Return whether SQL text, or any statement in it, begins or ends a transaction."""
    return any(ends_transaction(words) or begins_transaction(words) for words in boundaries(sql))
