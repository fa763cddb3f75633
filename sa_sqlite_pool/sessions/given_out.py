"""The sessions of the facade's ``read()`` and ``write()`` blocks, and how they end."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import wraps
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, final

from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from ..compat.greenlets import greenlet_spawn, run_to_end
from ..compat.sqlalchemy_orm import may_roll_back
from ..settings import Role
from .drop_in import async_sessionmaker
from .routing import RoutedAsyncSession, RoutedSession

if TYPE_CHECKING:
    import typing_extensions

    S_co = typing_extensions.TypeVar(
        "S_co", bound=AsyncSession, default=AsyncSession, covariant=True
    )
else:  # the default is for type checkers alone; before Python 3.13 typing has none
    S_co = TypeVar("S_co", bound=AsyncSession, covariant=True)

S = TypeVar("S", bound=AsyncSession)
F = TypeVar("F", bound=Callable[..., Awaitable[Any]])

DEFAULT_SESSION_CLASS: type[AsyncSession] = RoutedAsyncSession


@final
class GuardedSessionmaker(async_sessionmaker[S]):
    """A session maker that calls ``assert_usable()`` before it creates a session."""

    def __init__(self, assert_usable: Callable[[], None], **options: Any) -> None:
        super().__init__(**options)
        self._assert_usable = assert_usable

    def __call__(self, **local_kw: Any) -> S:
        self._assert_usable()
        return super().__call__(**local_kw)


@final
class SessionBlock(AbstractAsyncContextManager[S_co, None], Generic[S_co]):
    """The context manager of ``db.read()`` and ``db.write()``: a session that ends with the block.

    ``maker`` creates the session with ``options``; messages call the block ``name``. A block can be
    entered once; as a decorator, it is entered once for each call. An asynchronous generator
    would register itself with the event loop each time, which costs more than this whole class.
    """

    __slots__ = ("_maker", "_name", "_options", "_session")

    def __init__(
        self, maker: GuardedSessionmaker[S_co], options: dict[str, Any], name: str
    ) -> None:
        self._maker = maker
        self._options = options
        self._name = name
        self._session: S_co | None = None

    def __call__(self, function: F) -> F:
        """Decorate a coroutine function: each call runs in a block of its own."""

        @wraps(function)
        async def inner(*args: Any, **kwargs: Any) -> Any:
            async with SessionBlock(self._maker, self._options, self._name):
                return await function(*args, **kwargs)

        return cast(F, inner)

    async def __aenter__(self) -> S_co:
        if self._session is not None:
            raise InvalidRequestError(
                f"this block can be entered only once: call {self._name} again"
            )
        self._session = self._maker(**self._options)
        return await self._session.__aenter__()

    async def __aexit__(self, type_: Any, value: Any, traceback: Any) -> None:
        session = self._session
        assert session is not None
        try:
            if self._options["role"] is not Role.WRITER:
                await session.__aexit__(type_, value, traceback)
            elif type_ is not None:
                await _roll_back_and_close(session)
            elif type(session) is RoutedAsyncSession:
                try:
                    await greenlet_spawn(_commit_and_close, session.sync_session)
                except BaseException:
                    await _roll_back_and_close(session)
                    raise
            else:
                await _commit_and_close_own_class(session)
        finally:
            assert isinstance(session.sync_session, RoutedSession)
            session.sync_session.ended_after = self._name


# These functions do not use ``session.begin()``: within its block, SQLAlchemy refuses all use of a
# session after ``commit()``. As there, what a failed flush leaves behind is rolled back.


def _commit_and_close(session: Session) -> None:
    """Commit and close a session; both run in one greenlet."""
    if session.is_active:
        session.commit()
    else:
        session.rollback()
    session.close()


async def _commit_and_close_own_class(session: AsyncSession) -> None:
    """Commit and close a session of the application's class, whose methods may await anything."""
    try:
        await (session.commit() if session.is_active else session.rollback())
    except BaseException:
        await _roll_back_and_close(session)
        raise
    await session.__aexit__(None, None, None)


async def _roll_back_and_close(session: AsyncSession) -> None:
    """End the session of a block that has failed.

    ``close()`` rolls back, too, but leaves objects as they are: an added object would look as if
    its row existed, and adding it again would insert nothing. ``rollback()`` makes it transient
    again, as in SQLAlchemy's ``session.begin()``.
    """
    try:
        if may_roll_back(session.sync_session):
            if type(session) is RoutedAsyncSession:
                await run_to_end(session.sync_session.rollback)
            else:  # the application's method may await anything, and use the current task
                await session.rollback()
    finally:
        await session.__aexit__(*sys.exc_info())
