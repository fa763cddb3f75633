"""One call of ``run_read()``."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, final

from ..execution.awaited import Awaited
from ..system.clock import call_later, loop_time, time
from .thread_connection import ThreadConnection

T = TypeVar("T")

# Seconds that a cancellation waits for a running function, which is then left to run.
_LET_GO_SECONDS = 1.0


class Queue(Protocol):
    """The calls that wait, each for at most ``seconds``; None means no limit."""

    seconds: float | None

    def drop(self, call: ReadCall[Any]) -> bool:
        """Remove ``call``, and return whether it was there; if so, it will never run."""


@final
class ReadCall(Awaited[T]):
    """A function that reads, and its outcome. It waits in ``queue`` until it is taken from there.

    ``fn`` is the function that the application has passed, ``deadline`` the loop time until which
    it waits, as set by the queue; None means no limit. ``began`` and ``taken_at`` are the monotonic
    times at which its wait began, and ended because it was taken to run; ``held_by`` describes what
    blocked it after a long wait, and is None if there was none. ``cancelled`` is True once no task
    awaits it any more, ``let_go`` once its task has resumed while it was still running.
    """

    cancelled = False
    let_go = False
    taken_at: float | None = None
    held_by: str | None = None

    def __init__(
        self,
        queue: Queue,
        fn: object,
        body: Callable[..., T],
        *arguments: object,
    ) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._queue = queue
        self._body = body
        self._arguments = arguments
        self._in_context = contextvars.copy_context().run
        self.fn = fn
        self.began = time.monotonic()
        seconds = queue.seconds
        self.deadline = None if seconds is None else loop_time(loop) + seconds
        self.task = asyncio.current_task(loop)

    # -- in the thread --------------------------------------------------------------------------

    def run(self, here: ThreadConnection) -> None:
        """Call ``body(here, *arguments)`` in the context of the caller."""
        self._result = self._in_context(self._body, here, *self._arguments)

    def fail(self, error: BaseException) -> None:
        """Set its outcome, which is then to be reported. Any thread may call this."""
        self._error = error

    # -- in the loop ----------------------------------------------------------------------------

    def _begin_to_stop(self) -> None:
        if self._queue.drop(self):
            self._loop.call_soon(self.report)
        elif not self.cancelled:
            self.cancelled = True
            call_later(self._loop, _LET_GO_SECONDS, self._leave_alone)

    def _leave_alone(self) -> None:
        if not self._reported:
            self.let_go = True
            self.report()
