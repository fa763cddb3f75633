"""Which calls of ``run_read()`` share a reader, and when another reader takes over.

All calls of a loop that wait are in one group, and one reader runs them, one after the other;
several readers in several threads would compete for the interpreter lock. A call that runs for long
would delay the others, so the rest of its group is handed over to another one then:

    First group           | Second group          | They wait
    runs a, b             |                       | a, b, c, d
    runs c, which is long |                       | d
                          | is begun, runs d      |
    ends c, is returned   | runs e                | e, …

Functions that ran for long are remembered: when one is called again, another reader takes over at
once. All calls begin in order of arrival.
"""

from __future__ import annotations

import contextvars
from functools import partial
from typing import Any, final

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import PoolProxiedConnection

from ..driver.executor import Executor
from ..errors import ReadTimeout
from ..execution.long_functions import LongFunctions
from ..mutex import new_lock
from ..pools.base import waits_for_others
from ..sqlite.driver_errors import dbapi
from ..system.clock import call_later, time
from ..system.exits import close_at_exit
from ..system.forks import prepare_before_fork
from ..turn.snapshots import Snapshots
from ..turn.waits import WaitedFor
from .group import Group, Groups
from .line import Call, Line
from .shared_reader import PATIENCE_SECONDS, TOGETHER_SECONDS, SharedReader


@final
class ReadGroup(Group):
    """Calls that share a reader."""

    _groups: Reads
    _is_returned = False  # the reader; or it is about to be
    _serves = False  # a hop has begun, or is about to
    _watches = False  # a timer checks for a long call

    def __init__(self, groups: Reads, line: Line) -> None:
        super().__init__(groups, line)
        self._mutex = new_lock()  # for the reader, which another thread returns before a fork

    def join(self, call: Call[Any]) -> bool:
        joined = super().join(call)
        if joined and self._serves:
            self._watch()
        return joined

    def not_in_time(self) -> Exception:
        error = super().not_in_time()
        if not self._groups.in_gap:
            return error
        return ReadTimeout(
            f"waited {self._groups.timeout:.2f} s to read from {self._groups.label}; no read "
            "transaction can begin while its log is being emptied; raise read_timeout, or lower "
            "reader_gap"
        )

    def describe_holders(self) -> str:
        if self._groups.in_gap:
            return "no reader: the log is being emptied"
        return super().describe_holders()

    # -- its leader -----------------------------------------------------------------------------

    async def _get_ready(self) -> None:
        waits_for_others.set(True)
        if (gap := self._groups.gap) is not None:
            await gap.until_no_gap()
            self._groups.gap = None

    async def _serve(self, executor: Executor, proxied: PoolProxiedConnection) -> None:
        groups = self._groups
        reader = SharedReader(
            *(self, groups.engine.sync_engine, executor, proxied, groups.threads, groups.long)
        )
        while self._begin_hop(reader):
            if self.line is not None and len(self.line.calls) > 1:
                self._watch()
            try:
                await self._hop(executor, reader.serve)
            except dbapi.Error:  # it was given up: another reader takes over
                return

    def _begin_hop(self, reader: SharedReader) -> bool:
        with self._mutex:
            stays = self.waiting and not self._is_returned
            self._serves = stays and reader.may_stay(time.monotonic())
        return self._serves

    def _may_return(self) -> bool:
        with self._mutex:
            is_returned, self._is_returned = self._is_returned, True
        return not is_returned

    def return_reader_at_rest(self) -> None:
        """Check the reader in if its calls have ended, before a fork. Any thread may call this."""
        if self._checked_out is None:
            return
        proxied, executor = self._checked_out
        with self._mutex:
            at_rest = not (self._serves or self._is_returned) and executor.worker.at_rest
            self._is_returned = self._is_returned or at_rest
        if at_rest:
            proxied.close()

    # -- its reader's thread --------------------------------------------------------------------

    def report_soon(self) -> None:
        """Resume the tasks of the calls that have ended, while the next one runs."""
        self._post(self._report)

    def leave_others(self) -> None:
        """Let another reader run all other calls, since the one that was taken takes long."""
        self._post(self._hand_over)

    def put_back(self, call: Call[Any], snapshots: Snapshots) -> None:
        """Put ``call``, which has met a gap, back at the head of the line."""
        self._groups.gap = snapshots
        call.taken_at = None
        self._taken.pop()  # first: a report that is under way stops at the running call
        self._running = None
        if (line := self.line) is not None:
            with line.mutex:
                if self.line is line:
                    line.calls[call] = None
                    line.calls.move_to_end(call, last=False)
                    return
        self._post(partial(self._groups.add, call))  # its line was handed over

    def leave(self) -> None:
        """End a hop: all calls that were taken have their outcomes."""
        self._running, self._serves = None, False

    # -- long calls -----------------------------------------------------------------------------

    def _watch(self) -> None:
        if not self._watches and self.waiting:
            context = contextvars.Context()
            call_later(self.loop, PATIENCE_SECONDS, self._look, context=context)
            self._watches = True  # only now: the call may fail if the stack is nearly exhausted

    def _look(self) -> None:
        """Let another reader take over from one whose call delays the others."""
        self._watches = False
        running = self._running
        if running is None or running.taken_at is None or not self.waiting:
            return
        if time.monotonic() - running.taken_at >= PATIENCE_SECONDS:
            self._report()
            self._hand_over()
        else:
            self._watch()


@final
class Reads(Groups):
    """All calls of ``run_read()`` on one reader engine.

    ``long`` are the functions that ran for long. ``gap`` is set after a call has met a gap, in
    which no read transaction begins; the gap may have ended since.
    """

    waited_for = WaitedFor.READER
    leaders = "reads"

    def __init__(self, engine: AsyncEngine, label: str, threads: set[int]) -> None:
        super().__init__(engine, label, None, threads)
        self.timeout = self.pool.timeout()
        self.long = LongFunctions(TOGETHER_SECONDS)
        self.gap: Snapshots | None = None
        prepare_before_fork(self)
        close_at_exit(self, reads=True)

    @property
    def in_gap(self) -> bool:
        """True if no read transaction can begin now."""
        return self.gap is not None and self.gap.in_gap

    def _assert_may_wait(self) -> None:
        """Do nothing: a task may read on several readers."""

    def _new_group(self, line: Line) -> ReadGroup:
        return ReadGroup(self, line)

    def prepare_for_fork(self) -> None:
        for group in list(self._groups):
            assert isinstance(group, ReadGroup)
            group.return_reader_at_rest()
        self.pool.prepare_for_fork()

    def close_at_exit(self) -> None:
        self.prepare_for_fork()
