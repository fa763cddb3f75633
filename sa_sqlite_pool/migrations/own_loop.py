"""Run a coroutine on an event loop of its own, in a thread.

Alembic and the revisions are synchronous code, which yields to the loop only where it executes SQL.
Between two statements, it would block the application's loop: for the time of an import, or for
minutes if a revision computes something.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from ..compat.main_greenlets import keep_main_greenlet
from ..system.loop_state import call_unless_closed

T = TypeVar("T")


async def run_aside(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` in a thread; return or raise its outcome. The caller's loop continues meanwhile.

    ``main`` runs in a copy of the caller's context. A cancellation is passed on to ``main``, and
    raised once ``main`` has ended, so that no part of it is left running.
    """
    loop = asyncio.new_event_loop()
    tasks: SimpleQueue[asyncio.Task[T]] = SimpleQueue()
    ended: Future[None] = Future()
    # A daemon thread, so that the interpreter can exit whatever a revision does.
    thread = threading.Thread(
        target=_run, args=(loop, tasks, ended), name="sa_sqlite_pool migration", daemon=True
    )
    try:
        thread.start()  # before the task is created, which would never end if this fails
    except BaseException:
        main.close()
        loop.close()
        raise
    task = loop.create_task(main)
    tasks.put(task)
    waiting = asyncio.wrap_future(ended)
    cancelled: asyncio.CancelledError | None = None
    while not waiting.done():
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError as error:
            cancelled = error
            call_unless_closed(loop, task.cancel)  # if closed, the task has just ended
    if cancelled is not None:
        raise cancelled from (None if task.cancelled() else task.exception())
    return task.result()


def _run(
    loop: asyncio.AbstractEventLoop, tasks: SimpleQueue[asyncio.Task[T]], ended: Future[None]
) -> None:
    keep_main_greenlet()
    task = tasks.get()
    try:
        with contextlib.suppress(BaseException):  # the task stores its outcome, even sys.exit()
            loop.run_until_complete(task)
    finally:
        loop.close()
        ended.set_result(None)
