"""Session makers for two engines."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar, overload

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from ..errors import ConfigurationError
from . import drop_in
from .composing import composed, derived
from .refusals import assert_staleness_can_be_told, twophase_refused
from .routing import RoutedAsyncSession, RoutedSession

S = TypeVar("S", bound=AsyncSession)


@cache
def routed_class(class_: Any) -> type[AsyncSession]:
    """Return ``class_`` combined with :class:`RoutedAsyncSession`; itself if it is routed already.

    Its ``sync_session_class`` is routed in the same way.
    """
    try:
        sync_class = composed(class_.sync_session_class, Session, RoutedSession)
        routed: type[AsyncSession] = composed(class_, AsyncSession, RoutedAsyncSession)
        if routed.sync_session_class is not sync_class:
            routed = derived(routed, sync_session_class=sync_class)
    except (AttributeError, TypeError) as error:
        raise ConfigurationError(
            f"{class_!r} cannot be routed: {error}; pass a subclass of AsyncSession whose "
            "sync_session_class is a subclass of Session"
        ) from error
    return routed


def sessionmaker_options(
    *,
    writer: AsyncEngine,
    reader: AsyncEngine,
    class_: Any,
    expire_on_commit: bool = False,
    refuse_stale_writes: bool = False,
    **kw: Any,
) -> dict[str, Any]:
    """Return the arguments for an ``async_sessionmaker``: see :func:`routing_sessionmaker`."""
    for name, engine in (("writer", writer), ("reader", reader)):
        if not isinstance(engine, AsyncEngine):
            raise ConfigurationError(f"{name} must be an AsyncEngine, not {engine!r}")
    if kw.get("twophase"):
        raise twophase_refused()
    if refuse_stale_writes:
        assert_staleness_can_be_told(writer.sync_engine, reader.sync_engine)
    return {
        "bind": writer,
        "class_": routed_class(class_),
        "expire_on_commit": expire_on_commit,
        "writer": writer,
        "reader": reader,
        "refuse_stale_writes": refuse_stale_writes,
        **kw,
    }


@overload
def routing_sessionmaker(
    *,
    writer: AsyncEngine,
    reader: AsyncEngine,
    class_: type[S],
    expire_on_commit: bool = False,
    refuse_stale_writes: bool = False,
    **kw: Any,
) -> async_sessionmaker[S]: ...


@overload
def routing_sessionmaker(
    *,
    writer: AsyncEngine,
    reader: AsyncEngine,
    expire_on_commit: bool = False,
    refuse_stale_writes: bool = False,
    **kw: Any,
) -> async_sessionmaker[AsyncSession]: ...


def routing_sessionmaker(
    *,
    writer: AsyncEngine,
    reader: AsyncEngine,
    class_: type[AsyncSession] = RoutedAsyncSession,
    expire_on_commit: bool = False,
    refuse_stale_writes: bool = False,
    **kw: Any,
) -> async_sessionmaker[Any]:
    """Return an ``async_sessionmaker`` whose sessions use a writer and a reader engine.

    ``Session()`` is an auto session: reads go to the reader until the first write (flush, DML, DDL,
    text that is not a read, ``with_for_update``, ``session.connection()``), then everything goes to
    the writer until the transaction ends. ``Session(role="writer")`` and ``Session(role="reader")``
    use one engine from the start.

    :param class_: the session class: any subclass of ``AsyncSession``
    :param expire_on_commit: False by default: expired attributes would be reloaded on access,
        which an asyncio session cannot do
    :param refuse_stale_writes: if an auto session has read and another transaction was committed
        since, its first write raises :class:`~sa_sqlite_pool.StaleReadError` instead of overwriting
        changes that the session has not seen
    :param kw: any other arguments of ``Session``, except ``twophase``. Statements that ``binds`` or
        ``bind`` direct to another engine or connection are not routed
    """
    return drop_in.async_sessionmaker(
        **sessionmaker_options(
            writer=writer,
            reader=reader,
            class_=class_,
            expire_on_commit=expire_on_commit,
            refuse_stale_writes=refuse_stale_writes,
            **kw,
        )
    )
