"""SQLAlchemy's asyncio classes, with less overhead for each call.

Their methods are SQLAlchemy's own, with three differences:

* calls run in a greenlet that is reused: :mod:`..compat.greenlets`;
* a block that ends returns its connection at once, unless that requires an await; SQLAlchemy does
  so in a separate task, one iteration of the loop later, and the next in line waits for that;
* ``engine.begin()`` connects and begins in one greenlet.

The transactions and streaming results that they create are of these classes, too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar, final

from sqlalchemy import URL, Transaction
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext import asyncio as theirs
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncMappingResult,
    AsyncResult,
    AsyncScalarResult,
    AsyncSession,
    AsyncSessionTransaction,
    AsyncTransaction,
)
from sqlalchemy.ext.asyncio import engine as where_defined
from sqlalchemy.ext.asyncio.base import ProxyComparable

from ..compat.greenlets import greenlet_spawn, run_to_end
from ..compat.sqlalchemy_asyncio import in_greenlets_used_again

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])


class LeanResult(AsyncResult[Any]):
    """An ``AsyncResult`` that reuses greenlets; each fetch of a row or chunk runs in one."""

    __slots__ = ()


class LeanScalarResult(AsyncScalarResult[Any]):
    """An ``AsyncScalarResult`` that reuses greenlets."""

    __slots__ = ()


class LeanMappingResult(AsyncMappingResult):
    """An ``AsyncMappingResult`` that reuses greenlets."""

    __slots__ = ()


@final
class Replaceable:
    """A function of ``sqlalchemy.ext.asyncio`` that is looked up there by its name at each call.

    OpenTelemetry's instrumentation and others replace it with a function of their own. If a program
    has replaced it with this package's, the lookup leads back here, and SQLAlchemy's is called.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        # A program may have replaced the name before it imports this package.
        self._sqlalchemys: Callable[..., AsyncEngine] = getattr(where_defined, name)
        self._called = ContextVar(name, default=False)

    def __call__(self, *args: Any, **kw: Any) -> AsyncEngine:
        if self._called.get():
            return self._sqlalchemys(*args, **kw)
        token = self._called.set(True)
        try:
            engine: AsyncEngine = getattr(theirs, self._name)(*args, **kw)
        finally:
            self._called.reset(token)
        return engine


_create_async_engine = Replaceable("create_async_engine")


class _Equal:
    """A proxy that is equal to any other of the same object, as two of SQLAlchemy's proxies are."""

    __slots__ = ()

    _proxied: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProxyComparable) and bool(self._proxied == other._proxied)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return id(self)


class LeanTransaction(_Equal, AsyncTransaction):
    """An ``AsyncTransaction`` that reuses greenlets."""

    __slots__ = ()


class LeanConnection(_Equal, AsyncConnection):
    """An ``AsyncConnection`` that reuses greenlets."""

    __slots__ = ()

    async def start_begun(self) -> Transaction:
        """Start the connection and return its transaction, entered: end it with ``__exit__()``."""
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
        if type(self).close is LeanConnection.close:
            await run_to_end(self._proxied.close)
        else:  # the application's method may await anything, and use the current task
            await super().__aexit__(type_, value, traceback)


@final
class _Begun(AbstractAsyncContextManager[AsyncConnection, None]):
    """The context manager of ``LeanEngine.begin()``: a connection with its transaction."""

    __slots__ = ("_connection", "_entered", "_transaction")

    def __init__(self, connection: LeanConnection) -> None:
        self._connection = connection
        self._entered = False

    def __call__(self, function: F) -> F:
        """Decorate a function, as SQLAlchemy's does: each call runs in a block of its own."""
        return AsyncEngine.begin(self._connection.engine)(function)

    async def __aenter__(self) -> AsyncConnection:
        if self._entered:
            raise InvalidRequestError("this block can be entered only once: call begin() again")
        self._entered = True
        self._transaction = await self._connection.start_begun()
        return self._connection

    async def __aexit__(self, type_: Any, value: Any, traceback: Any) -> None:
        try:
            await greenlet_spawn(self._transaction.__exit__, type_, value, traceback)
        finally:
            await self._connection.__aexit__(type_, value, traceback)


class LeanEngine(_Equal, AsyncEngine):
    """An ``AsyncEngine`` that reuses greenlets."""

    __slots__ = ()

    _connection_cls = LeanConnection

    @classmethod
    def create(cls, url: str | URL, **options: Any) -> LeanEngine:
        """Create an engine, as ``create_async_engine`` does."""
        return cls(_create_async_engine(url, **options).sync_engine)

    def begin(self) -> AbstractAsyncContextManager[AsyncConnection]:  # type: ignore[override]
        connection = self.connect()
        if type(connection) is LeanConnection:
            return _Begun(connection)
        return super().begin()  # a subclass has connections of its own class


class LeanSessionTransaction(AsyncSessionTransaction):
    """An ``AsyncSessionTransaction`` that reuses greenlets."""

    __slots__ = ()


class LeanSession(AsyncSession):
    """An ``AsyncSession`` that reuses greenlets."""

    async def connection(
        self, bind_arguments: Any = None, execution_options: Any = None, **kw: Any
    ) -> AsyncConnection:
        connection = await greenlet_spawn(
            self.sync_session.connection,
            bind_arguments=bind_arguments,
            execution_options=execution_options,
            **kw,
        )
        return LeanConnection._retrieve_proxy_for_target(connection)

    async def __aexit__(self, type_: Any, value: Any, traceback: Any) -> None:
        if type(self).close is LeanSession.close:
            await run_to_end(self.sync_session.close)
        else:  # the application's method may await anything, and use the current task
            await super().__aexit__(type_, value, traceback)

    def _maker_context_manager(self) -> Any:  # for sessionmaker.begin()
        if type(self).begin is LeanSession.begin:
            return _SessionBlock(self)
        return super()._maker_context_manager()


@final
class _SessionBlock:
    """The context manager of ``async_sessionmaker.begin()``: a session with its transaction."""

    __slots__ = ("_session", "_transaction")

    def __init__(self, session: LeanSession) -> None:
        self._session = session

    async def __aenter__(self) -> LeanSession:
        self._transaction = self._session.begin()
        await self._transaction.__aenter__()
        return self._session

    async def __aexit__(self, type_: Any, value: Any, traceback: Any) -> None:
        transaction = self._transaction.sync_transaction
        assert transaction is not None
        try:
            await run_to_end(partial(transaction.__exit__, type_, value, traceback))
        finally:
            await self._session.__aexit__(type_, value, traceback)


_OURS: dict[type, type] = {
    AsyncResult: LeanResult,
    AsyncScalarResult: LeanScalarResult,
    AsyncMappingResult: LeanMappingResult,
    AsyncTransaction: LeanTransaction,
    AsyncConnection: LeanConnection,
    AsyncEngine: LeanEngine,
    AsyncSessionTransaction: LeanSessionTransaction,
    AsyncSession: LeanSession,
}
for _base, _class in _OURS.items():
    in_greenlets_used_again(_class, _OURS)
    # SQLAlchemy's messages use __name__. __qualname__ stays, because pickle finds the class by it.
    _class.__name__ = _base.__name__
