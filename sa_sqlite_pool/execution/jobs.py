"""A function that runs in a connection's thread and is awaited from an event loop.

``sqlite3_interrupt()`` stops a statement, and "a call to sqlite3_interrupt(D) that occurs when
there are no running SQL statements is a no-op" (https://www.sqlite.org/c3ref/interrupt.html): a
call a moment before the statement begins, or between two statements of a job, is lost. So the call
is repeated until the thread has finished the job.
"""

from __future__ import annotations

import asyncio
import enum
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, TypeVar, final

from ..mutex import new_lock
from ..system.clock import call_later, loop_time, time
from ..system.forks import rest
from ..system.loop_state import of_running_loop
from .awaited import Awaited
from .mailbox import Mailbox

T = TypeVar("T")

# The time between two interrupts of a job that must stop.
_REPEAT_SECONDS = 0.005

# The time between two attempts of a thread to report while memory is exhausted.
_NO_MEMORY_SECONDS = 0.01

# A thread that has not finished after this time, for example because a function of the application
# sleeps, is no longer waited for: a cancellation must not wait for ever.
_LET_GO_SECONDS = 1.0


class OutOfTime(Exception):  # noqa: N818 - not for users: the connection says what ran too long
    """The job was stopped because its time was up."""


class Stage(enum.Enum):
    """The state of a job, which changes under the job's mutex."""

    QUEUED = enum.auto()
    RUNNING = enum.auto()
    FINISHED = enum.auto()
    SKIPPED = enum.auto()  # cancelled before it began, while another job uses the connection
    DROPPED = enum.auto()  # cancelled before it began


OVER = (Stage.FINISHED, Stage.DROPPED)
_NOT_BEGUN = (Stage.SKIPPED, Stage.DROPPED)


@final
class Job(Awaited[T]):
    """A call of ``function(connection)`` in a thread, and its outcome. One task awaits it, once.

    A cancellation before it runs drops it. A cancellation while it runs interrupts its statement,
    and is raised once the thread has finished; with ``interruptible=False``, the job runs to its
    end first. After ``timeout`` seconds (None: never), the same happens, and ``OutOfTime`` is
    raised unless the job has ended meanwhile. Without a connection, it cannot be interrupted until
    the function has opened one: see :meth:`may_interrupt`. ``before_report()`` is called in the
    loop immediately before its task resumes. ``after`` is the preceding job on the same connection,
    None once that has ended; until then, this job cannot begin, nor be let go.
    """

    def __init__(
        self,
        function: Callable[[Any], T],
        connection: sqlite3.Connection | None,
        *,
        interruptible: bool,
        timeout: float | None = None,
        before_report: Callable[[], None] | None = None,
    ) -> None:
        self._function: Callable[[Any], T] | None = function
        self._before_report = before_report
        self._connection = connection
        self._loop = loop = asyncio.get_running_loop()
        self._mailbox = of_running_loop(Mailbox)
        self._interruptible = interruptible
        self._mutex = new_lock()
        self.stage = Stage.QUEUED
        self.thread: int | None = None  # in which it runs, or has run
        self.after: Job[Any] | None = None
        self._out_of_time = False
        self._give_up_at: float | None = None  # set once the job must stop
        self._timer = None if timeout is None else call_later(loop, timeout, self.time_is_over)

    def __repr__(self) -> str:
        return f"<Job {self.stage.name.lower()}>"

    @property
    def over(self) -> bool:
        """True if the thread has finished the job, or will never begin it."""
        return self.stage in OVER

    @property
    def must_stop(self) -> bool:
        """True if a function that is not interrupted should end: no task awaits it any more."""
        return self._give_up_at is not None or self._loop.is_closed()

    # -- in the thread --------------------------------------------------------------------------

    def may_interrupt(self, connection: sqlite3.Connection) -> None:
        """Let a cancellation interrupt statements on a connection that was just opened."""
        self._connection = connection

    def let_others_fork(self) -> None:
        """Allow a ``fork()`` within a long function, while the function does not use SQLite."""
        rest.end(self)
        rest.begin(self)

    def __call__(self) -> None:
        with self._mutex:
            self.after = None
            if self.stage is Stage.SKIPPED:
                self.stage = Stage.DROPPED
            if self.stage is Stage.DROPPED:
                self._function = None
                return
            self.stage = Stage.RUNNING
        # The job may be kept until the next one, and the function refers to the parameters.
        function, self._function = self._function, None
        assert function is not None
        try:
            self.thread = threading.get_ident()
            rest.begin(self)
            self._result = function(self._connection)
        except BaseException as error:  # raised again where it is awaited
            self._error = error
        finally:
            del function
            rest.end(self)
        with self._mutex:
            self.stage = Stage.FINISHED
        while True:
            try:
                self._mailbox.post(self.report)
                break
            except MemoryError:  # otherwise, its task would wait for ever
                time.sleep(_NO_MEMORY_SECONDS)

    def end_in_thread(self, reason: Exception) -> None:
        """Fail with ``reason`` if the job has not begun; otherwise, stop it, and wait until its
        thread has finished it. This runs in a thread other than the job's.
        """
        self._drop(reason)
        while not self.over:
            if self._interruptible:
                self._interrupt()
            time.sleep(0.001)

    def end_beside(self, reason: Exception) -> None:
        """End the job like :meth:`end_in_thread`, but never interrupt its thread's later work."""
        self._drop(reason)
        while self._interruptible and self._interrupted():
            time.sleep(0.001)

    def drop(self) -> bool:
        """Prevent the job from beginning, since no task awaits it; return False if it has begun."""
        with self._mutex:
            dropped = self.stage is Stage.QUEUED
            if dropped:
                self.stage = Stage.DROPPED
        return dropped

    def _drop(self, reason: Exception) -> None:
        """Prevent the job from beginning, unless it has begun."""
        with self._mutex:
            if self.stage is Stage.QUEUED:
                self._error = reason
                self._mailbox.post(self.report)
            if self.stage in {Stage.QUEUED, Stage.SKIPPED}:
                self.stage = Stage.DROPPED

    def _interrupted(self) -> bool:
        with self._mutex:
            running = self.stage is Stage.RUNNING
            if running:
                self._interrupt()
            return running

    # -- in the loop ----------------------------------------------------------------------------

    def report(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        before, self._before_report = self._before_report, None
        try:
            if before is not None:
                before()
        finally:
            super().report()

    def time_is_over(self) -> None:
        """Stop the job: ``OutOfTime`` is raised where it is awaited, unless it ends first."""
        self._out_of_time = True
        self._begin_to_stop()

    def _begin_to_stop(self) -> None:
        if self._interruptible and self._give_up_at is None:
            self._give_up_at = loop_time(self._loop) + _LET_GO_SECONDS
            self._stop()

    def _stop(self) -> None:
        """Drop the job, or interrupt it until the thread has finished it."""
        # The mutex ensures that the interrupt hits this job's statement, never the next one's.
        with self._mutex:
            if self.stage is Stage.RUNNING:
                self._interrupt()
            elif self.stage is Stage.QUEUED:
                self.stage = Stage.DROPPED if self.after is None else Stage.SKIPPED
        assert self._give_up_at is not None
        if self.stage in _NOT_BEGUN or loop_time(self._loop) >= self._give_up_at:
            self._loop.call_soon(self.report)
        elif self.stage is Stage.RUNNING:
            call_later(self._loop, _REPEAT_SECONDS, self._stop)

    def _interrupt(self) -> None:
        if self._connection is not None:
            self._connection.interrupt()

    @property
    def _was_stopped(self) -> bool:
        return self.stage is not Stage.FINISHED or str(self._error) == "interrupted"

    def outcome(self) -> T:
        if self._out_of_time and self._was_stopped and not self._cancelled:
            self._error = None  # as in super().outcome(): it would form a cycle
            raise OutOfTime
        return super().outcome()
