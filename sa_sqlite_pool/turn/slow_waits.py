"""Log the waits for the write turn, or for a connection, that take long.

What is in the way is described when the limit is reached, since the holder does something else when
the wait is over. The record comes at the end, with the whole time.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, final

from ..reporting.events import SlowWait, log
from ..reporting.repeats import Repeats, others_left_out
from ..system.loop_state import of_running_loop
from .deadlines import Deadlines
from .whereabouts import caller, describe_task


class WaitedFor(enum.Enum):
    """What a task waits for."""

    TURN = "write turn"
    PROCESS = "other process"  # that has the turn, while the task has that of its own process
    READER = "reader"
    CONNECTION = "connection"


_PURPOSES = {
    WaitedFor.TURN: "to write to",
    WaitedFor.PROCESS: "to write to",
    WaitedFor.READER: "for a reader of",
    WaitedFor.CONNECTION: "for a connection to",
}


class WaitingCall(Protocol):
    """A call of a function that waits until it is taken to run. Times are monotonic."""

    @property
    def began(self) -> float:
        """The time at which its wait began."""

    @property
    def taken_at(self) -> float | None:
        """The time at which it was taken to run; None if it was not."""

    @property
    def held_by(self) -> str | None:
        """What was in the way when it had waited for long; None if it had not."""


_SERVED = "served"
_NOT_SEEN = "not known, since the event loop was busy"
_nothing: AbstractContextManager[None] = contextlib.nullcontext()


@final
class SlowWaits:
    """The waits of one engine that take ``limit`` seconds or longer; None: none is logged.

    Once a minute for each line of the application. ``clock`` returns monotonic seconds.
    """

    def __init__(self, limit: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.clock = clock
        self._repeats = Repeats(clock)

    def watch(
        self, database: str, what: WaitedFor, describe_holders: Callable[[], str | None]
    ) -> AbstractContextManager[None]:
        """Return a block for a wait of the running task, which is logged if it is long."""
        if self.limit is None:
            return _nothing
        return _Watch(self, self.limit, database, what, describe_holders)

    def report_call(
        self, database: str, what: WaitedFor, call: WaitingCall, error: BaseException | None
    ) -> None:
        """Log the wait of a call, which was long, after its end. In the coroutine of its task."""
        if isinstance(error, GeneratorExit):
            return  # its loop is gone, and the garbage collector calls this
        assert call.held_by is not None
        ended, served = call.taken_at or self.clock(), call.taken_at is not None
        seconds = ended - call.began
        self.report(database, what, seconds, call.held_by, None if served else error)

    def report(
        self,
        database: str,
        what: WaitedFor,
        seconds: float,
        held_by: str,
        error: BaseException | None,
    ) -> None:
        """Log a wait of the running task, which has ended with ``error``. In its coroutine."""
        place = caller()
        asked_at, file = (None, None) if place is None else (str(place), place.code.co_filename)
        left_out = self._repeats.admit((database, what, file, asked_at))
        if left_out is None:
            return
        outcome = _SERVED if error is None else type(error).__name__
        task = asyncio.current_task()
        name = None if task is None else task.get_name()
        event = SlowWait(
            database=database,
            task=name,
            asked_at=asked_at,
            waited_for=what.value,
            seconds_waited=seconds,
            held_by=held_by,
            outcome=outcome,
            left_out=left_out,
        )
        log(
            event,
            "%s waited %.2f s %s %s at %s%s; in the way when %.2f s had passed: %s; shorten such "
            "transactions, or raise slow_wait_warning%s",
            *(describe_task(name), seconds, _PURPOSES[what], database, asked_at),
            *("" if error is None else f", in vain ({outcome})", self.limit, held_by),
            others_left_out(left_out),
        )


@final
class _Watch:
    """One wait."""

    __slots__ = (
        "_began",
        "_database",
        "_deadlines",
        "_describe_holders",
        "_held_by",
        "_limit",
        "_waits",
        "_what",
    )

    def __init__(
        self,
        waits: SlowWaits,
        limit: float,
        database: str,
        what: WaitedFor,
        describe_holders: Callable[[], str | None],
    ) -> None:
        self._waits = waits
        self._limit = limit
        self._database = database
        self._what = what
        self._describe_holders = describe_holders
        self._held_by: str | None = None

    def __enter__(self) -> None:
        self._began = self._waits.clock()
        self._deadlines = of_running_loop(Deadlines)
        self._deadlines.add(self._limit, self._note_holders)

    def _note_holders(self) -> None:
        try:
            self._held_by = self._describe_holders()
        except Exception as error:  # the timer has others to wake, of whose wait this is the limit
            self._held_by = f"not known ({error!r})"

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._deadlines.discard(self._limit, self._note_holders)
        seconds = self._waits.clock() - self._began
        if seconds < self._limit or isinstance(exc, GeneratorExit):
            return  # or its loop is gone, and the garbage collector calls this
        self._waits.report(self._database, self._what, seconds, self._held_by or _NOT_SEEN, exc)


NOT_WATCHED = SlowWaits(None)
"""For waits that are not the application's, or are watched elsewhere."""
