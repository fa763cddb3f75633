"""SQLAlchemy's asyncio classes, with less work around each call.

Their methods are SQLAlchemy's own, with three differences:

* calls run in a greenlet that is used again: :mod:`..compat.greenlets`;
* a block that ends gives its connection back at once, unless something has to be awaited for that,
  and not in a task of its own, an iteration of the loop later, for which the next in line waits;
* ``engine.begin()`` connects and begins in one greenlet.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar, final

from sqlalchemy import URL, Transaction
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    AsyncSessionTransaction,
    AsyncTransaction,
    create_async_engine,
)

from ..compat.greenlets import greenlet_spawn, run_to_end
from ..compat.sqlalchemy_asyncio import in_greenlets_used_again

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])


@in_greenlets_used_again
class LeanTransaction(AsyncTransaction):
    """An ``AsyncTransaction`` that reuses greenlets."""

    __slots__ = ()


@in_greenlets_used_again
class LeanConnection(AsyncConnection):
    """An ``AsyncConnection`` that reuses greenlets."""

    __slots__ = ()

    def begin(self) -> AsyncTransaction:
        assert self._proxied
        return LeanTransaction(self)

    def begin_nested(self) -> AsyncTransaction:
        assert self._proxied
        return LeanTransaction(self, nested=True)

    async def start_begun(self) -> Transaction:
        """Call ``start()``, and return a transaction, entered already: leave it by ``__exit__``."""
        return await greenlet_spawn(self._connect_and_begin)

    def _connect_and_begin(self) -> Transaction:
        connection = self.sync_engine.connect()
        self.sync_connection = self._assign_proxied(connection)
        try:
            return connection.begin().__enter__()
        except BaseException:
            connection.close()
            raise

    async def __aexit__(self, type_: Any, value: Any, traceback: Any) -> None:
        await run_to_end(self._proxied.close)


@final
class _Begun(AbstractAsyncContextManager[AsyncConnection, None]):
    """The context of ``LeanEngine.begin()``: a connection with its transaction."""

    __slots__ = ("_connection", "_entered", "_transaction")

    def __init__(self, connection: LeanConnection) -> None:
        self._connection = connection
        self._entered = False

    def __call__(self, function: F) -> F:
        """Decorate a function, as SQLAlchemy's context does: a block around each call."""
        return AsyncEngine.begin(self._connection.engine)(function)

    async def __aenter__(self) -> AsyncConnection:
        if self._entered:
            raise InvalidRequestError("this block can be entered once: call begin() again")
        self._entered = True
        self._transaction = await self._connection.start_begun()
        return self._connection

    async def __aexit__(self, type_: Any, value: Any, traceback: Any) -> None:
        try:
            await greenlet_spawn(self._transaction.__exit__, type_, value, traceback)
        finally:
            await self._connection.__aexit__(type_, value, traceback)


@in_greenlets_used_again
class LeanEngine(AsyncEngine):
    """An ``AsyncEngine`` that reuses greenlets."""

    __slots__ = ()

    _connection_cls = LeanConnection

    @classmethod
    def create(cls, url: str | URL, **options: Any) -> LeanEngine:
        """Return an engine, as ``create_async_engine`` does."""
        return cls(create_async_engine(url, **options).sync_engine)

    def begin(self) -> AbstractAsyncContextManager[AsyncConnection]:  # type: ignore[override]
        return _Begun(LeanConnection(self))

    def execution_options(self, **opt: Any) -> AsyncEngine:
        return type(self)(self.sync_engine.execution_options(**opt))


@in_greenlets_used_again
class LeanSessionTransaction(AsyncSessionTransaction):
    """An ``AsyncSessionTransaction`` that reuses greenlets."""

    __slots__ = ()


@in_greenlets_used_again
class LeanSession(AsyncSession):
    """An ``AsyncSession`` that reuses greenlets."""

    def begin(self) -> AsyncSessionTransaction:
        return LeanSessionTransaction(self)

    def begin_nested(self) -> AsyncSessionTransaction:
        return LeanSessionTransaction(self, nested=True)

    async def __aexit__(self, type_: Any, value: Any, traceback: Any) -> None:
        if type(self).close is LeanSession.close:
            await run_to_end(self.sync_session.close)
        else:  # the application's, which may await anything, and use its task
            await super().__aexit__(type_, value, traceback)
