"""The write turn of a database file: one for all engines, loops, threads and processes.

It has two halves. Tasks wait in line within their process, for a permit; the holder of the permit
waits in line between processes, for the file, and keeps it for as long as it needs SQLite's lock.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any, final

from ..errors import TurnAlreadyHeldError, WriteTimeout
from ..stats.lines import TurnStatistics
from ..stats.wait_counter import WaitCounter
from ..system.clock import time
from .courtesy import Courtesy
from .fair_semaphore import FairSemaphore
from .file_requests import FileLockRequest
from .file_turn import FileTurn
from .permit import Permit, Waiter
from .waits import UNWATCHED, WaitedFor, WaitWatch

UNKNOWN_CONNECTION = "another connection, whose process cannot be determined,"
OWN_CONNECTION = "another connection of this process"
"""Names of the holder of SQLite's lock, for use where the system reveals no more."""

# White space and comments, such as those that a listener of before_cursor_execute puts in front. A
# comment has one possible end only: with more, many comments would take exponential time.
_SKIPPED = r"(?:\s|;|--[^\n]*(?:\n|\Z)|/\*(?:[^*]|\*(?!/))*(?:\*/|\Z))"
_DDL = re.compile(rf"{_SKIPPED}*(?:CREATE|ALTER|DROP)\b", re.IGNORECASE)
_ENDS = re.compile(
    rf"{_SKIPPED}*(?:COMMIT|END|ROLLBACK)(?:{_SKIPPED}+TRANSACTION)?{_SKIPPED}*", re.IGNORECASE
)

# A holder that finds SQLite's lock taken retries sooner than this, unless its loop is very busy.
_BUSY_SECONDS = 0.1


@final
class Place:
    """A place in line for the turn, taken before there is a task to wait in it.

    ``context`` is that of the call on whose behalf the task works, None if there is no such call.
    """

    def __init__(self, line: FairSemaphore, waiter: Waiter) -> None:
        self._line = line
        self._waiter = waiter
        self._used = False
        self.context: Context | None = None

    @property
    def is_last(self) -> bool:
        """True if no other waiter has joined the line since then."""
        return self._line.arrivals == self._waiter.number

    def hand_to(self, task: asyncio.Task[Any] | None) -> None:
        """Make ``task`` (None: no task) the owner of the place, and of the turn once acquired."""
        self._waiter.hand_to(task)
        if self._waiter.permit is not None:
            self._waiter.permit.work_for(task)

    async def wait(self) -> Permit:
        """Wait for the turn; may be called once. A cancellation leaves no place and no turn."""
        assert not self._used
        self._used = True
        try:
            permit = await self._line.wait(self._waiter, None)
            assert permit is not None
            permit.seconds_waited = time.monotonic() - self._waiter.since
        except BaseException:  # wait() may not have started
            self._line.leave_line(self._waiter)
            raise
        return permit

    def leave(self) -> None:
        """Give up the place, unless a task has waited in it."""
        if not self._used:
            self._used = True
            self._line.leave_line(self._waiter)


place_in_line: ContextVar[Place | None] = ContextVar("sa_sqlite_pool_place", default=None)
"""The place in line that the current task already has; None if it has none."""


@final
class WriteTurn:
    """The right to write to one database file; part of its :class:`.DatabaseFile`.

    ``line`` is the line within the process. ``identity`` is the real path of the file, ``name`` the
    database's name in messages. ``describe_writer()`` returns what holds SQLite's lock now, if the
    system reveals it, and ``turn_of(path)`` the turn of another file of the process. ``courtesy``
    is what the process owes to programs that do not know the turn.
    """

    def __init__(
        self,
        identity: str,
        name: str,
        *,
        describe_writer: Callable[[], str | None],
        turn_of: Callable[[str], WriteTurn],
    ) -> None:
        self.name = name
        self.turn_of = turn_of
        self._describe_writer = describe_writer
        self.line = FairSemaphore(1)
        self._file = FileTurn(identity)
        self._shared = False
        self._met_busy_at = float("-inf")
        self._self_deadlocks = 0
        self._waits_for_processes = WaitCounter()  # used by the holder of the turn
        self.courtesy = Courtesy()

    def __repr__(self) -> str:
        status = "free" if self.holder is None else f"held for {self.line.describe_holders()}"
        return f"<WriteTurn {self.name}, {status}, {self.waiting} waiting>"

    def share(self) -> None:
        """Wait in line with other processes, too, from now on."""
        self._shared = True

    @property
    def shared(self) -> bool:
        """True if the turn is shared with other processes."""
        return self._shared

    @property
    def waiting(self) -> int:
        """The number of tasks of this process waiting in line."""
        return self.line.waiting

    @property
    def holder(self) -> Permit | None:
        """The permit of the task that may write now; None if the turn is free."""
        return next(iter(self.line.permits), None)

    def locked(self) -> bool:
        """Return whether a task of this process holds the turn."""
        return self.line.locked()

    def statistics(self) -> TurnStatistics:
        """Return the state of the turn, with the whereabouts of its holder.

        If the turn is shared with other processes, this reads the system's list of locks.
        """
        line = self.line.statistics()
        return TurnStatistics(
            holder=next(iter(line.holders), None),
            waiting=line.waiting,
            waits=line.waits,
            self_deadlocks=self._self_deadlocks,
            shared=self._shared,
            waits_for_processes=self._waits_for_processes.snapshot(),
            other_processes=tuple(self._file.holders()) if self._shared else (),
        )

    # -- within the process ---------------------------------------------------------------------

    async def acquire(
        self,
        timeout: float,
        owner: object = None,
        *,
        waited: float = 0.0,
        watch: WaitWatch = UNWATCHED,
    ) -> Permit:
        """Wait for the turn, in order of arrival, at most ``timeout`` less ``waited`` seconds.

        Does not suspend if the turn is free. A cancellation leaves the turn unacquired. ``owner``
        is the object on whose behalf the task waits: see :meth:`send_away`. ``watch`` is the watch
        over the engine's waits.

        Raises :class:`~sa_sqlite_pool.WriteTimeout` with the holder's name and whereabouts, and
        :class:`~sa_sqlite_pool.TurnAlreadyHeldError` at once if the task already holds the turn.
        """
        if permit := self.line.acquire_at_once():
            return permit
        return await self.wait_in_line(timeout, owner, waited=waited, watch=watch)

    def wait_in_line(
        self,
        timeout: float | None,
        owner: object = None,
        *,
        waited: float = 0.0,
        watch: WaitWatch = UNWATCHED,
    ) -> Coroutine[Any, Any, Permit]:
        """Wait as :meth:`acquire` does, after :meth:`acquire_nowait` has returned None.

        A ``timeout`` of None sets no limit.
        """
        self.assert_not_held()

        def not_in_time() -> WriteTimeout:
            assert timeout is not None
            return self.not_in_time(timeout)

        left = None if timeout is None else max(0.0, timeout - waited)
        return watch.in_line(
            self.line, WaitedFor.TURN, self.name, owner, left, not_in_time=not_in_time
        )

    def assert_not_held(self) -> None:
        """Raise ``TurnAlreadyHeldError`` if the current task would wait for itself."""
        if self.line.is_in_use_by(asyncio.current_task()):
            self._self_deadlocks += 1
            raise TurnAlreadyHeldError(
                f"this task already holds the write turn of {self.name} "
                f"({self.line.describe_holders()}) and would wait for itself; "
                f"{self._way_out_of_own_turn()}"
            )

    def _way_out_of_own_turn(self) -> str:
        """Return advice; a writer's connection holds the turn until it is returned to its pool."""
        holder = self.holder
        if holder is not None and _ENDS.fullmatch(holder.last_sql or ""):
            return (
                "its transaction has ended, but its connection has not been returned: close it "
                "first; a listener of after_commit or after_rollback can write in a new task"
            )
        return "write through the session or connection that is open, or end its transaction first"

    def not_in_time(self, seconds: float) -> WriteTimeout:
        """Return the error for a task that waited ``seconds`` while another task held the turn."""
        return WriteTimeout(
            f"waited {seconds:.2f} s to write to {self.name}; the turn has been held for "
            f"{self.line.describe_holders()}, {self.line.waiting} more waiting in line; "
            f"{self._way_out()}shorten that transaction or raise write_timeout"
        )

    def _way_out(self) -> str:
        """Return advice for cases such as a test fixture that has created its tables and waits."""
        holder = self.holder
        if holder is None or holder.last_sql is None or not _DDL.match(holder.last_sql):
            return ""
        return (
            "what it created or dropped is part of its transaction, whereas the stock driver "
            "commits that at once: commit it before others write, "
        )

    def stand_in_line(self, owner: object) -> Place:
        """Join the line now; return the place, in which another task may wait without limit."""
        waiter = self.line.stand_in_line(owner)
        try:
            return Place(self.line, waiter)
        except BaseException:
            self.line.leave_line(waiter)
            raise

    def acquire_nowait(self) -> Permit | None:
        """Acquire the turn if it is free, without waiting. For use inside an event loop."""
        return self.line.acquire_nowait()

    def release(self, permit: Permit) -> None:
        """Release the turn to the next task in line. From any thread."""
        self.line.release(permit)

    def close_files(self) -> None:
        """Close the files of the turn between processes, unless a task holds the turn.

        The next task that acquires the turn reopens them. From any thread.
        """
        permit = self.line.acquire_for_a_moment(counts=False)
        if permit is None:
            return
        try:
            self._file.close()
        finally:
            self.line.release_after_a_moment(permit)

    def send_away(self, owner: object, error: Callable[[], Exception]) -> None:
        """Raise ``error()`` in the tasks that wait on behalf of ``owner``."""
        self.line.send_away(owner, error)
        self._file.send_away(owner, error)

    # -- between processes, for the holder of the turn here -------------------------------------

    def enter_nowait(self) -> FileLockRequest | None:
        """Acquire the file if it is free, with one system call, or sometimes three; else None."""
        if not self._shared:
            return _ALONE
        request = self._file.acquire_nowait()
        if request is not None:
            self._waits_for_processes.at_once += 1
        return request

    async def enter(
        self,
        timeout: float,
        owner: object = None,
        *,
        waited: float = 0.0,
        watch: WaitWatch = UNWATCHED,
    ) -> FileLockRequest:
        """Wait for the file, at most ``timeout`` less ``waited`` seconds.

        Release it with :meth:`FileLockRequest.release`. A cancellation leaves nothing acquired.
        ``watch`` is as in :meth:`acquire`.

        Raises :class:`~sa_sqlite_pool.WriteTimeout` with the name of the process that holds it.
        """
        request = self.enter_nowait()
        if request is not None:
            return request
        place, describe = place_in_line.get(), self._file.describe
        context = None if place is None else place.context
        # Calls for which a place was taken in advance log their own waits.
        logged = place is None
        wait = watch.block(
            WaitedFor.PROCESS, self.name, None, describe, context=context, logged=logged
        )
        try:
            with wait:
                request = await self._wait_for_file(max(0.0, timeout - waited), owner)
                if request is None:
                    raise self.file_not_in_time(timeout)
        except BaseException:  # including errors of the report of the wait, after its end
            if request is not None:
                request.release()
            raise
        return request

    def file_not_in_time(self, seconds: float) -> WriteTimeout:
        """Return the error for a task that waited ``seconds`` while a process held the turn."""
        return WriteTimeout(
            f"waited {seconds:.2f} s to write to {self.name}; {self._file.describe()} holds "
            f"the turn, {self.line.waiting} more of this process waiting in line; shorten the "
            "transaction there or raise write_timeout"
        )

    async def _wait_for_file(self, timeout: float, owner: object) -> FileLockRequest | None:
        holder, began, cancelled = self.holder, time.monotonic(), True
        if holder is not None:
            holder.waits_for = self._file.describe
        request: FileLockRequest | None = None
        try:
            request = await self._file.acquire(timeout, owner)
            cancelled = False
            return request
        finally:
            timed_out, seconds = request is None and not cancelled, time.monotonic() - began
            self._waits_for_processes.ended(seconds, timed_out=timed_out, cancelled=cancelled)
            if holder is not None:
                holder.waits_for = None

    def meet_busy(self) -> None:
        """Record that another connection has SQLite's lock nevertheless. In the holder's thread."""
        if (holder := self.holder) is not None:
            self._met_busy_at = time.monotonic()
            holder.waits_for = lambda: self._describe_lock(holder)
        if self._shared:
            self._file.meet_busy()
            self.courtesy.meet()

    def _describe_lock(self, holder: Permit) -> str | None:
        """Return what holds SQLite's lock while ``holder`` waits for it; None if it does not wait.

        A waiting holder retries every few milliseconds. One that has not tried for longer has the
        lock, or has given up; if another process has the lock, the holder is still waiting.
        """
        if holder.idle_since is not None:
            return None
        found = self._describe_writer() or UNKNOWN_CONNECTION
        certain = found not in {OWN_CONNECTION, UNKNOWN_CONNECTION}
        if not certain and time.monotonic() - self._met_busy_at > _BUSY_SECONDS:
            return None
        return f"SQLite's lock, which {found} holds"


_ALONE = FileLockRequest(None, time.monotonic, None)
"""The request used if no other process shares the file: there is nothing to release."""
