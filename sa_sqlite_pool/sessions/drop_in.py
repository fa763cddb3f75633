"""SQLAlchemy's asyncio names, with less overhead for each call, and SQLitePool for SQLite.

An application that imports them from this package instead of ``sqlalchemy.ext.asyncio`` changes
nothing else. They take the same arguments and return instances of SQLAlchemy's classes; other
databases work as they do with SQLAlchemy.
"""

from __future__ import annotations

from typing import Any, TypeVar, overload

from sqlalchemy import URL, make_url
from sqlalchemy.ext import asyncio as theirs
from sqlalchemy.ext.asyncio import AsyncSession as TheirSession
from sqlalchemy.ext.asyncio import async_scoped_session

from ..errors import ConfigurationError
from ..pools.impl import SQLitePool
from ..pools.plugin import names_pool
from .composing import composed
from .lean import LeanConnection, LeanEngine, LeanSession, Replaceable

__all__ = [
    "AsyncConnection",
    "AsyncEngine",
    "AsyncSession",
    "async_engine_from_config",
    "async_scoped_session",
    "async_sessionmaker",
    "create_async_engine",
    "reuse_greenlets",
]

S = TypeVar("S", bound=TheirSession)

_async_engine_from_config = Replaceable("async_engine_from_config")

AsyncConnection = LeanConnection
AsyncEngine = LeanEngine
AsyncSession = LeanSession


def create_async_engine(url: str | URL, **kw: Any) -> theirs.AsyncEngine:
    """Create an engine as SQLAlchemy's function of that name does, with the same arguments.

    The engine reuses greenlets. For ``sqlite+aiosqlite``, ``poolclass`` defaults to
    :class:`~sa_sqlite_pool.SQLitePool`, whose options are accepted, too. Other pools and databases
    work as they do with SQLAlchemy's function.
    """
    return LeanEngine.create(url, **{**kw, **_default_pool({**kw, "url": url})})


def async_engine_from_config(
    configuration: dict[str, Any], prefix: str = "sqlalchemy.", **kwargs: Any
) -> theirs.AsyncEngine:
    """Create an engine from a dictionary, as SQLAlchemy's function of that name does.

    The result is the same as that of :func:`create_async_engine`.
    """
    options = {
        key.removeprefix(prefix): value
        for key, value in configuration.items()
        if key.startswith(prefix)
    }
    kwargs.update(_default_pool({**options, **kwargs}))
    return LeanEngine(_async_engine_from_config(configuration, prefix, **kwargs).sync_engine)


def _default_pool(options: dict[str, Any]) -> dict[str, Any]:
    """Return the ``poolclass`` for an engine whose options do not name one."""
    url = options.get("url")
    if url is None or make_url(url).drivername != "sqlite+aiosqlite" or names_pool(options):
        return {}
    return {"poolclass": SQLitePool}


def reuse_greenlets(class_: type[S]) -> type[S]:
    """Return a subclass of one of the application's session classes that reuses greenlets.

    This is for the sessions of SQLModel and other libraries: ``Session =
    reuse_greenlets(SQLModelSession)``; it is also a decorator. This package's
    ``async_sessionmaker`` does so automatically. The subclass inherits the methods, constructor and
    ``sync_session_class``; the class itself stays unchanged, and always yields the same subclass.
    Calls that the class makes through SQLAlchemy's ``greenlet_spawn``, as SQLModel's ``exec()``
    does, reuse greenlets, too. Raises :class:`~sa_sqlite_pool.ConfigurationError` if ``class_`` is
    not a subclass of ``AsyncSession``.
    """
    given: Any = class_
    if not _is_session_class(given):
        raise ConfigurationError(
            f"{given!r} cannot reuse greenlets: pass a subclass of AsyncSession"
        )
    return composed(given, TheirSession, LeanSession)  # type: ignore[no-any-return]


def _is_session_class(given: Any) -> bool:
    return isinstance(given, type) and issubclass(given, TheirSession)


class async_sessionmaker(theirs.async_sessionmaker[S]):  # noqa: N801
    """SQLAlchemy's ``async_sessionmaker``, whose sessions, of any class, reuse greenlets."""

    @overload
    def __init__(
        self,
        bind: theirs.AsyncEngine | theirs.AsyncConnection | None = ...,
        *,
        class_: type[S],
        autoflush: bool = ...,
        expire_on_commit: bool = ...,
        info: dict[Any, Any] | None = ...,
        **kw: Any,
    ) -> None: ...

    @overload
    def __init__(
        self: async_sessionmaker[AsyncSession],
        bind: theirs.AsyncEngine | theirs.AsyncConnection | None = ...,
        *,
        autoflush: bool = ...,
        expire_on_commit: bool = ...,
        info: dict[Any, Any] | None = ...,
        **kw: Any,
    ) -> None: ...

    def __init__(
        self,
        bind: theirs.AsyncEngine | theirs.AsyncConnection | None = None,
        *,
        class_: Any = AsyncSession,
        autoflush: bool = True,
        expire_on_commit: bool = True,
        info: dict[Any, Any] | None = None,
        **kw: Any,
    ) -> None:
        if _is_session_class(class_):
            class_ = reuse_greenlets(class_)
        super().__init__(
            bind,
            class_=class_,
            autoflush=autoflush,
            expire_on_commit=expire_on_commit,
            info=info,
            **kw,
        )
