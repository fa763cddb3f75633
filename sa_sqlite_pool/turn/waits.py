"""Reports of waits: to an observer, for traces and histograms, and, if they are long, to the log.

Usually there is no observer; then a task that has to wait checks two attributes and no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import time as application_time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import Context
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, TypeAlias, final

from ..reporting.events import ObserverFailed, SlowWait, log
from ..reporting.repeats import Repeats, others_left_out
from ..stats.lines import Holder
from ..system.clock import time
from ..system.loop_state import of_running_loop
from .deadlines import Deadlines
from .fair_semaphore import FairSemaphore
from .permit import Permit
from .whereabouts import caller, describe_task


class WaitedFor(enum.Enum):
    """What a task waits for."""

    TURN = "write turn"
    PROCESS = "other process"
    """The turn between processes, which another process holds."""
    READER = "reader"
    CONNECTION = "connection"


_PURPOSES = {
    WaitedFor.TURN: "to write to",
    WaitedFor.PROCESS: "to write to",
    WaitedFor.READER: "for a reader of",
    WaitedFor.CONNECTION: "for a connection to",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedWait:
    """A completed wait of a task. ``began_ns`` is in nanoseconds since the epoch.

    ``holder`` had held its permit longest when the wait began, ``process`` describes the process
    that held the turn; None if unknown. ``error`` is what ended a wait in vain, or None.
    """

    what: WaitedFor
    database: str
    began_ns: int
    seconds: float
    holder: Holder | None
    process: str | None
    error: BaseException | None


Observer: TypeAlias = Callable[[ObservedWait], None]


class WaitingCall(Protocol):
    """A call of a function that waits to be picked up for execution. Times are monotonic."""

    @property
    def began(self) -> float:
        """The time at which the wait began."""

    @property
    def taken_at(self) -> float | None:
        """The time at which the call was picked up for execution; None if it was not."""

    @property
    def held_by(self) -> str | None:
        """The holder when the wait exceeded the limit for long waits; None if it did not."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """What an observer is told about the beginning of a wait."""

    began_ns: int
    holder: Holder | None = None
    process: str | None = None

    @classmethod
    def in_line(cls, line: FairSemaphore, now: float) -> Beginning:
        """Return the beginning of a wait in ``line``."""
        permit = next(iter(line.permits), None)
        return cls(
            application_time.time_ns(), holder=None if permit is None else permit.snapshot(now)
        )


NOTHING: Final[AbstractContextManager[None]] = contextlib.nullcontext()
"""The block of a wait that is neither observed nor logged."""

_SERVED = "served"
_NOT_SEEN = "unknown, because the event loop was busy"


@final
class WaitWatch:
    """The watch over the waits of one engine.

    Waits of ``limit`` seconds or longer are logged, once a minute for each source line of the
    application; with None, no wait is. The holder is described when the limit is reached, since it
    is doing something else by the time the wait ends; the record is logged at the end, with the
    total time. ``observer``, unless None, is called after each wait, in the task that waited.
    ``clock`` returns monotonic seconds.
    """

    def __init__(self, limit: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.clock = clock
        self.observer: Observer | None = None
        self._repeats = Repeats(clock)

    # -- waits of the running task --------------------------------------------------------------

    async def in_line(
        self,
        line: FairSemaphore,
        what: WaitedFor,
        database: str,
        owner: object,
        timeout: float | None,
        not_in_time: Callable[[], Exception],
    ) -> Permit:
        """Join ``line`` for ``owner``, and wait at most ``timeout`` seconds (None: no limit).

        Raises ``not_in_time()`` on timeout. An error or a cancellation leaves no place, no permit.
        """
        place = line.stand_in_line(owner)
        try:
            with self.block(what, database, line, lambda: line.in_the_way_of(place)):
                permit = await line.wait(place, timeout)
                if permit is None:
                    raise not_in_time()
        except BaseException:  # including errors of the report of the wait, after its end
            line.leave_line(place)
            raise
        permit.seconds_waited = time.monotonic() - place.since
        return permit

    def block(
        self,
        what: WaitedFor,
        database: str,
        line: FairSemaphore | None,
        describe: Callable[[], str | None],
        *,
        context: Context | None = None,
        logged: bool = True,
    ) -> AbstractContextManager[None]:
        """Return a context manager for a wait, which exits with the error if the wait was in vain.

        ``line`` is the line of the wait, None for a wait for a process; ``describe()`` returns what
        is in the way. ``context`` is the context of the task on whose behalf this one waits.
        """
        limit = self.limit if logged else None
        if limit is None and self.observer is None:
            return NOTHING
        return _Wait(self, limit, what, database, line, describe, context)

    # -- waits of calls, whose own timer checks them once they have waited for long --------------

    def beginning(self, line: FairSemaphore) -> Beginning | None:
        """Return the beginning for :meth:`call_ended` to report; None if ``line`` is free.

        Useful only with an observer.
        """
        return Beginning.in_line(line, self.clock()) if line.locked() else None

    def call_ended(
        self,
        what: WaitedFor,
        database: str,
        call: WaitingCall,
        beginning: Beginning | None,
        error: BaseException | None,
    ) -> None:
        """Report a call's wait that was long, or observed. Runs in the coroutine of its task.

        ``error`` is what ended the call; it did not end the wait if the call had been picked up.
        """
        if isinstance(error, GeneratorExit):
            return  # the loop is gone, and the garbage collector is calling this
        ended, in_vain = (self.clock(), error) if call.taken_at is None else (call.taken_at, None)
        seconds = ended - call.began
        if call.held_by is not None:
            self.report(what, database, seconds, call.held_by, in_vain)
        if beginning is not None:
            self.observe(what, database, seconds, beginning, in_vain)

    # -- reports --------------------------------------------------------------------------------

    def observe(
        self,
        what: WaitedFor,
        database: str,
        seconds: float,
        beginning: Beginning,
        error: BaseException | None,
        context: Context | None = None,
    ) -> None:
        """Report a wait that ended with ``error`` to the observer, if there is one."""
        if (observer := self.observer) is None:
            return
        wait = ObservedWait(
            what=what,
            database=database,
            began_ns=beginning.began_ns,
            seconds=seconds,
            holder=beginning.holder,
            process=beginning.process,
            error=error,
        )
        with _never_failing(database):
            if context is None:
                observer(wait)
            else:
                context.run(observer, wait)

    def report(
        self,
        what: WaitedFor,
        database: str,
        seconds: float,
        held_by: str,
        error: BaseException | None,
    ) -> None:
        """Log a wait of the running task that ended with ``error``. Runs in its coroutine."""
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
            "%s waited %.2f s %s %s at %s%s; in the way after %.2f s: %s; shorten such "
            "transactions, or raise slow_wait_warning%s",
            *(describe_task(name), seconds, _PURPOSES[what], database, asked_at),
            *("" if error is None else f", in vain ({outcome})", self.limit, held_by),
            others_left_out(left_out),
        )


UNWATCHED = WaitWatch(None)
"""The watch for waits that are not the application's, or that are watched elsewhere."""


@final
class _Wait:
    """One wait that is observed, or logged if it takes ``limit`` seconds (None: never logged)."""

    __slots__ = (
        "_began",
        "_beginning",
        "_context",
        "_database",
        "_deadlines",
        "_describe",
        "_held_by",
        "_limit",
        "_line",
        "_watch",
        "_what",
    )

    def __init__(
        self,
        watch: WaitWatch,
        limit: float | None,
        what: WaitedFor,
        database: str,
        line: FairSemaphore | None,
        describe: Callable[[], str | None],
        context: Context | None,
    ) -> None:
        self._watch = watch
        self._limit = limit
        self._what = what
        self._database = database
        self._line = line
        self._describe = describe
        self._context = context
        self._held_by: str | None = None
        self._beginning: Beginning | None = None

    def __enter__(self) -> None:
        self._began = self._watch.clock()
        if self._watch.observer is not None:
            self._beginning = self._look()
        if self._limit is not None:
            self._deadlines = of_running_loop(Deadlines)
            self._deadlines.add(self._limit, self._note_holders)

    def _look(self) -> Beginning:
        with _never_failing(self._database):
            if self._line is not None:
                return Beginning.in_line(self._line, self._began)
            return Beginning(application_time.time_ns(), process=self._describe())
        return Beginning(application_time.time_ns())

    def _note_holders(self) -> None:
        try:
            self._held_by = self._describe()
        except Exception as error:  # the timer must still wake other tasks with the same timeout
            self._held_by = f"unknown ({error!r})"

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        limit, watch = self._limit, self._watch
        if limit is not None:
            self._deadlines.discard(limit, self._note_holders)
        if isinstance(error, GeneratorExit):
            return  # the loop is gone, and the garbage collector is calling this
        wait = self._what, self._database, watch.clock() - self._began
        if limit is not None and wait[2] >= limit:
            watch.report(*wait, self._held_by or _NOT_SEEN, error)
        if self._beginning is not None:
            watch.observe(*wait, self._beginning, error, self._context)


@contextlib.contextmanager
def _never_failing(database: str) -> Iterator[None]:
    """Log an observer's error, which would otherwise discard what the task has waited for."""
    try:
        yield
    except Exception as error:
        log(ObserverFailed(database=database), "a wait was not recorded", error=error)
