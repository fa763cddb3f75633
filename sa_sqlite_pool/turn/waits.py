"""What is told of waits: to an observer, for traces and histograms, and to the log if long.

As a rule there is no observer, and then a task that has to wait looks at two attributes, no more.
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
    """The turn between processes, which another one has."""
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
    """A wait of a task, which has ended. ``began_ns`` is in nanoseconds since the epoch.

    ``holder`` is what was waited for longest when it began, ``process`` describes the process that
    had the turn; None if not known. ``error`` is what ended the wait in vain, None if it did not.
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


@dataclass(frozen=True, slots=True)
class Beginning:
    """What an observer is told of the beginning of a wait."""

    began_ns: int
    holder: Holder | None = None
    process: str | None = None

    @classmethod
    def in_line(cls, line: FairSemaphore, now: float) -> Beginning:
        """Return that of a wait in ``line``."""
        permit = next(iter(line.permits), None)
        return cls(
            application_time.time_ns(), holder=None if permit is None else permit.snapshot(now)
        )


NOTHING: Final[AbstractContextManager[None]] = contextlib.nullcontext()
"""The block of a wait that is neither observed nor logged."""

_SERVED = "served"
_NOT_SEEN = "not known, since the event loop was busy"


@final
class WaitWatch:
    """The watch over the waits of one engine.

    ``limit``: waits of so many seconds or longer are logged, once a minute for each line of the
    application; None: none is. What is in the way is described when the limit is reached, since the
    holder does something else when the wait is over; the record comes at the end, with the whole
    time. ``observer`` is called after each wait, in the task that has waited; None: nothing is.
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

        Raise ``not_in_time()`` then. An error or a cancellation leaves no place and no permit.
        """
        place = line.stand_in_line(owner)
        try:
            with self.block(what, database, line, lambda: line.in_the_way_of(place)):
                permit = await line.wait(place, timeout)
                if permit is None:
                    raise not_in_time()
        except BaseException:  # also of what is told of the wait, after its end
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
        """Return a block for a wait, which is left with the error if the wait was in vain.

        ``line`` is the line that is waited in, None if a process is waited for; ``describe()``
        returns what is in the way. ``context`` is that of the task on whose behalf this one waits.
        """
        limit = self.limit if logged else None
        if limit is None and self.observer is None:
            return NOTHING
        return _Wait(self, limit, what, database, line, describe, context)

    # -- waits of calls, which a timer of their own looks at when they have waited for long ------

    def beginning(self, line: FairSemaphore) -> Beginning | None:
        """Return what :meth:`call_ended` tells of the beginning; None if ``line`` is free.

        Of use only with an observer.
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
        """Tell of the wait of a call, which was long, or observed. In the coroutine of its task.

        ``error`` is what has ended the call; it is not the wait's if the call was taken to run.
        """
        if isinstance(error, GeneratorExit):
            return  # its loop is gone, and the garbage collector calls this
        ended, in_vain = (self.clock(), error) if call.taken_at is None else (call.taken_at, None)
        seconds = ended - call.began
        if call.held_by is not None:
            self.report(what, database, seconds, call.held_by, in_vain)
        if beginning is not None:
            self.observe(what, database, seconds, beginning, in_vain)

    # -- what is told ---------------------------------------------------------------------------

    def observe(
        self,
        what: WaitedFor,
        database: str,
        seconds: float,
        beginning: Beginning,
        error: BaseException | None,
        context: Context | None = None,
    ) -> None:
        """Tell the observer, if there is one, of a wait that has ended with ``error``."""
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


UNWATCHED = WaitWatch(None)
"""For waits that are not the application's, or are watched elsewhere."""


@final
class _Wait:
    """One wait that is observed, or logged if it takes ``limit`` seconds (None: it is not)."""

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
        except Exception as error:  # the timer has others to wake, of whose wait this is the limit
            self._held_by = f"not known ({error!r})"

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
            return  # its loop is gone, and the garbage collector calls this
        wait = self._what, self._database, watch.clock() - self._began
        if limit is not None and wait[2] >= limit:
            watch.report(*wait, self._held_by or _NOT_SEEN, error)
        if self._beginning is not None:
            watch.observe(*wait, self._beginning, error, self._context)


@contextlib.contextmanager
def _never_failing(database: str) -> Iterator[None]:
    """Log an error of an observer: what was waited for would be lost otherwise."""
    try:
        yield
    except Exception as error:
        log(ObserverFailed(database=database), "a wait was not recorded", error=error)
