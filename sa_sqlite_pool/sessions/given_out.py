"""Sessions of a facade's blocks, and their end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from .routing import RoutedSession


@final
class GuardedSessionmaker(async_sessionmaker[AsyncSession]):
    """A session maker that calls ``assert_usable()`` before it makes a session."""

    def __init__(self, assert_usable: Callable[[], None], **options: Any) -> None:
        super().__init__(**options)
        self._assert_usable = assert_usable

    def __call__(self, **local_kw: Any) -> AsyncSession:
        self._assert_usable()
        return super().__call__(**local_kw)


def end_session(session: AsyncSession, block: str) -> None:
    """Let the session of ``block``, which has ended, refuse further use."""
    assert isinstance(session.sync_session, RoutedSession)
    session.sync_session.refuse_use_after(block)
