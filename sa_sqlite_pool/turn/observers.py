"""Optional observers of waits, for traces and histograms.

There is none as a rule, and then a task that has to wait looks at an empty dictionary, no more.
"""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import Context
from dataclasses import dataclass
from types import TracebackType
from typing import Final, TypeAlias, final

from ..reporting.events import ObserverFailed, log
from ..stats.lines import Holder
from .fair_semaphore import FairSemaphore


class WaitFor(enum.Enum):
    """What a task waits for."""

    TURN = "turn"
    PROCESS = "process"
    """The turn between processes, which another one has."""
    CONNECTION = "connection"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedWait:
    """A wait of a task, which has ended. ``began_ns`` is in nanoseconds since the epoch.

    ``holder`` is what was waited for longest when it began, ``process`` describes the process that
    had the turn; None if not known. ``error`` is what ended the wait in vain, None if it did not.
    """

    what: WaitFor
    database: str
    began_ns: int
    seconds: float
    holder: Holder | None
    process: str | None
    error: BaseException | None


Observer: TypeAlias = Callable[[ObservedWait], None]

# By the object on whose behalf tasks wait. Copied when it changes: threads read it.
_observers: dict[object, Observer] = {}


def observe_waits(owner: object, observer: Observer) -> None:
    """Call ``observer`` after each wait on behalf of ``owner``, in the task that has waited."""
    global _observers  # noqa: PLW0603
    _observers = {**_observers, owner: observer}


def forget_observer(owner: object) -> None:
    """Undo :func:`observe_waits`."""
    global _observers  # noqa: PLW0603
    _observers = {key: value for key, value in _observers.items() if key is not owner}


NOTHING: Final[AbstractContextManager[None]] = contextlib.nullcontext()
"""The block of a wait that is not observed."""


def waits_are_observed() -> bool:
    """Return whether there is an observer of any waits."""
    return bool(_observers)


def observed(
    owner: object,
    what: WaitFor,
    database: str,
    held: FairSemaphore | Callable[[], str | None],
    taken_at: Callable[[], float | None] = lambda: None,
    context: Context | None = None,
) -> AbstractContextManager[None]:
    """Return a block for a wait, which is left with the error if the wait was in vain.

    ``held`` is the line that is waited in, or describes the process that is waited for.
    ``taken_at()`` is the monotonic time at which the wait has ended before its block does, None if
    it has not. ``context`` is that of the task on whose behalf another one waits.
    """
    observer = _observers.get(owner) if _observers else None
    if observer is None:
        return NOTHING
    return _Block(observer, what, database, held, taken_at, context)


@final
class _Block:
    """One wait that is observed."""

    __slots__ = (
        "_began",
        "_began_ns",
        "_context",
        "_held",
        "_holder",
        "_observe",
        "_taken_at",
        "_what",
    )

    def __init__(
        self,
        observer: Observer,
        what: WaitFor,
        database: str,
        held: FairSemaphore | Callable[[], str | None],
        taken_at: Callable[[], float | None],
        context: Context | None,
    ) -> None:
        self._observe = observer
        self._what = what, database
        self._held = held
        self._taken_at = taken_at
        self._context = context

    def __enter__(self) -> None:
        self._began, self._began_ns = time.monotonic(), time.time_ns()
        self._holder: tuple[Holder | None, str | None] = (None, None)
        with _never_failing(self._what[1]):
            self._holder = self._describe()

    def _describe(self) -> tuple[Holder | None, str | None]:
        if not isinstance(self._held, FairSemaphore):
            return None, self._held()
        permit = next(iter(self._held.permits), None)
        return None if permit is None else permit.snapshot(self._began), None

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, GeneratorExit):
            return  # its loop is gone, and the garbage collector calls this
        taken_at = self._taken_at()
        ended, in_vain = (time.monotonic(), error) if taken_at is None else (taken_at, None)
        with _never_failing(self._what[1]):
            wait = self._ended(ended - self._began, in_vain)
            if self._context is None:
                self._observe(wait)
            else:
                self._context.run(self._observe, wait)

    def _ended(self, seconds: float, error: BaseException | None) -> ObservedWait:
        (what, database), (holder, process) = self._what, self._holder
        return ObservedWait(
            what=what,
            database=database,
            began_ns=self._began_ns,
            seconds=seconds,
            holder=holder,
            process=process,
            error=error,
        )


@contextlib.contextmanager
def _never_failing(database: str) -> Iterator[None]:
    """Log an error of an observer: what was waited for would be lost otherwise."""
    try:
        yield
    except Exception as error:
        log(ObserverFailed(database=database), "a wait was not recorded", error=error)
