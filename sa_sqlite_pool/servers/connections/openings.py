"""Connections to a server that are being opened, and whose opening can be cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, final

from ..drivers.interface import Driver


@final
class Openings:
    """The connections to one server that are being opened. They belong to one event loop."""

    def __init__(self) -> None:
        self._running: set[asyncio.Future[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    async def open(
        self, driver: Driver, connect: Callable[..., Awaitable[Any]], *args: Any, **options: Any
    ) -> Any:
        """Return what ``connect()`` returns; raise ``ConnectionAbortedError`` on :meth:`call_off`.

        A cancellation leaves no connection open.
        """
        opening = asyncio.ensure_future(connect(*args, **options))
        self._running.add(opening)
        opening.add_done_callback(self._running.discard)
        try:
            await asyncio.wait([opening])
        except BaseException:
            if not opening.get_loop().is_closed():  # else it never resumes, and cannot be cancelled
                opening.add_done_callback(lambda done: _drop(driver, done))
                opening.cancel()
                await asyncio.wait([opening])
            raise
        if opening.cancelled():
            raise ConnectionAbortedError("the connection was cancelled while it was being opened")
        return opening.result()

    def call_off(self) -> None:
        """Cancel every opening."""
        for opening in list(self._running):
            if opening.get_loop().is_closed():
                self._running.discard(opening)
            else:
                opening.cancel()


def _drop(driver: Driver, opening: asyncio.Future[Any]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        driver.drop(opening.result())
