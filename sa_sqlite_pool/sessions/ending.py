"""The end of a session, which no cancellation may cut short.

SQLAlchemy closes a session in a task of its own, so that the cancellation of whoever leaves its
block does not reach it. A task costs several laps of the event loop, in which the session keeps its
connection. Here the end begins at once, and gets a task only when it comes to wait for something:
most sessions end without.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any


async def to_its_end(ending: Coroutine[Any, Any, None]) -> None:
    """Await ``ending``. A cancellation meanwhile is raised here when it has come to its end."""
    try:
        waits_for = ending.send(None)
    except StopIteration:
        return
    task = asyncio.create_task(_rest(ending, waits_for))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


async def _rest(ending: Coroutine[Any, Any, None], waits_for: Any) -> None:
    await _from_there(ending, waits_for)


@types.coroutine
def _from_there(ending: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    """What is left of a coroutine that waits for something already."""
    try:
        while True:
            try:
                sent = yield waits_for
            except BaseException as error:
                waits_for = ending.throw(error)
            else:
                waits_for = ending.send(sent)
    except StopIteration:
        return
