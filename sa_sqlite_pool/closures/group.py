"""Calls that share a connection: one after the other, in one hop.

A separate task leads each group, so that a caller's cancellation does not affect other callers. A
group belongs to one event loop, and ends with it, as do its callers.

    Leader                  | Thread                    | Callers
                            |                           | a, b join the group
    checks a connection out |                           |
    begins a hop            | takes and runs a          | c joins
                            | takes and runs b, then c  |
                            |                           | a, b, c have their results
                            |                           | d joins: begins another hop
    no call waits: checks   |                           |
    the connection in       |                           |

Calls that the leader leaves behind are handed over to the next group.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import PoolProxiedConnection

from ..compat.background import start_task
from ..compat.greenlets import greenlet_spawn
from ..compat.sqlalchemy_core import raw_connection
from ..driver.adapter import SQLiteConnection
from ..driver.executor import Executor
from ..execution.jobs import Job
from ..execution.mailbox import Mailbox
from ..pools.base import FairPool
from ..system.clock import time
from ..system.forks import renew_after_fork
from ..system.loop_state import call_unless_closed, of_running_loop
from ..transactions.locks import Patience
from ..turn.waits import WaitedFor
from .borrowed import give_back
from .line import Call, Line, Locked, for_another
from .thread_connection import ThreadConnection

T = TypeVar("T")


class Group(ABC):
    """The calls of ``line``, and the task that leads them: it has them run, one after the other.

    Methods run in the loop, unless stated otherwise.
    """

    def __init__(self, groups: Groups, line: Line) -> None:
        self._groups = groups
        self.loop = line.loop
        self.line: Line | None = line  # None once it was handed over
        self._post = of_running_loop(Mailbox).post
        self._closed = False  # no other call joins
        self._running: Call[Any] | None = None  # taken last; None between two hops
        self._taken: deque[Call[Any]] = deque()  # to be reported
        self._leader: asyncio.Future[None] | None = None
        self._checked_out: tuple[PoolProxiedConnection, Executor] | None = None
        self._job: Job[None] | None = None  # the hop

    def start(self) -> None:
        """Start the leader. An eager task factory runs it now, up to its first wait."""
        work = self._lead()
        try:
            self._leader = start_task(work, f"{self._groups.leaders} of {self._groups.label}")
        except BaseException:
            work.close()
            raise
        try:
            # Not in the first caller's context, which the callback would keep alive.
            self._leader.add_done_callback(self._leader_ended, context=contextvars.Context())
        except BaseException:
            self._leader.cancel()
            raise

    # -- its calls ------------------------------------------------------------------------------

    def join(self, call: Call[Any]) -> bool:
        """Let ``call`` wait behind the others; return False if the group takes no more."""
        line = self.line
        if line is None:
            return False
        with line.mutex:
            if self._closed:
                return False
            line.calls[call] = None
        call.line = line
        line.look_at(call)
        return True

    def take(self) -> Call[Any] | None:
        """Take the next call; None if there is none. Runs in the thread."""
        if (line := self.line) is None:
            return None
        with line.mutex:
            call = next(iter(line.calls), None)
            if call is not None:
                # It is removed last: if there is no memory, it still gets that error.
                call.taken_at = time.monotonic()
                self._running = call
                self._taken.append(call)
                del line.calls[call]
        return call

    def not_in_time(self) -> Exception:
        """Return the error of a call that has waited too long, and count it."""
        pool = self._groups.pool
        pool.counts.functions_timed_out += 1
        return pool.not_in_time()

    def describe_holders(self) -> str:
        """Describe what blocks the calls."""
        return self._groups.pool.describe_holders()

    def end_if_unwanted(self) -> None:
        """End, since no call waits any more, unless a call runs."""
        if self._job is None and self._leader is not None:
            self._closed = True
            self._leader.cancel()

    # -- its leader -----------------------------------------------------------------------------

    async def _lead(self) -> None:
        await self._get_ready()
        proxied = await greenlet_spawn(raw_connection, self._groups.engine.sync_engine)
        connection = proxied.dbapi_connection
        assert isinstance(connection, SQLiteConnection)
        executor = connection.executor
        self._checked_out = proxied, executor
        try:
            await self._serve(executor, proxied)
            self._hand_over()
        finally:
            self._closed = True
            if self._may_return():
                await give_back(proxied, executor)

    @abstractmethod
    async def _get_ready(self) -> None:
        """Do what has to be done before the checkout."""

    @abstractmethod
    async def _serve(self, executor: Executor, proxied: PoolProxiedConnection) -> None:
        """Run the calls on the connection that was checked out, in one or several hops."""

    def _may_return(self) -> bool:
        """Return whether the connection is still to be returned."""
        return True

    @property
    def waiting(self) -> bool:
        """True if calls wait for this group. Any thread may ask."""
        return self.line is not None and bool(self.line.calls)

    async def _hop(self, executor: Executor, function: Callable[[Any], None]) -> None:
        # The callers resume first: calls that they make at once are next in the group.
        self._job = executor.worker.run(function, interruptible=False, before_report=self._report)
        try:
            await self._job
        finally:
            self._job = None

    def _report(self) -> None:
        """Resume the tasks of the calls that have run."""
        taken = self._taken
        try:
            while taken and taken[0] is not self._running:
                taken.popleft().report()
        except BaseException:  # KeyboardInterrupt in a task: the other tasks still resume
            self._post(self._report)
            raise

    def _hand_over(self) -> None:
        """Let another group run the calls that still wait; no other call joins this one."""
        self._closed = True
        if (line := self.line) is None:
            return
        with line.mutex:
            self.line = None
        if not line.calls:
            line.stop()
            return
        try:
            self._groups.lead(line)
            line.look()
        except BaseException as error:  # otherwise, the calls would wait for ever
            line.fail_all(partial(for_another, error))

    def _leader_ended(self, leader: asyncio.Future[None]) -> None:
        """End the group after its leader has ended, in whatever way."""
        self._closed = True
        self._leader = None  # its error refers to its frames, and so to this group
        self._groups.forget(self)
        if leader.cancelled():
            # Not by a caller. If the loop ends, the calls are also cancelled in this iteration.
            self.loop.call_soon(self._hand_over)
            return
        error, line = leader.exception(), self.line
        if error is not None and line is not None:
            line.fail_first(error)
        self._hand_over()


class Groups(ABC):
    """All calls on one engine. ``threads`` are those in which a function runs.

    Each call waits at most ``timeout`` seconds, which may be infinite. ``label``, ``waited_for``
    and ``leaders`` are for messages. Any number of event loops may share this object.
    """

    waited_for: ClassVar[WaitedFor]
    leaders: ClassVar[str]

    def __init__(
        self, engine: AsyncEngine, label: str, timeout: float | None, threads: set[int]
    ) -> None:
        self.engine = engine
        self.label = label
        self.timeout = math.inf if timeout is None else timeout
        self._watch = self.pool.wait_watch
        self.threads = threads
        self.renew_in_child()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        """Forget the parent's groups."""
        self._last: dict[asyncio.AbstractEventLoop, Group] = {}  # of each loop
        self._groups: set[Group] = set()

    @property
    def pool(self) -> FairPool:
        """The engine's pool, which ``dispose()`` replaces with a new one."""
        pool = self.engine.sync_engine.pool
        assert isinstance(pool, FairPool)
        return pool

    async def run(self, fn: object, body: Callable[[ThreadConnection], T]) -> T:
        """Run ``body`` in a transaction, for the function ``fn`` of the application.

        Raise :class:`~sa_sqlite_pool.WriteTimeout` or :class:`~sa_sqlite_pool.ReadTimeout` if it
        could not begin in time. A cancellation before it has begun drops it; a later one stops it.
        """
        self._assert_may_wait()
        watch, patience = self._watch, None
        while True:
            call = Call(fn, body, self.timeout, math.inf if watch.limit is None else watch.limit)
            beginning = None if watch.observer is None else watch.beginning(self.pool.line)
            try:
                self.add(call)
            except BaseException:  # the stack is exhausted, or a signal handler has raised it
                if call.line is not None:  # otherwise, it would run, and its outcome would be lost
                    call.line.drop(call)
                raise
            try:
                return await call
            except Locked as locked:
                patience = patience or Patience(locked.rules, None, writing=False)
                await patience.wait(locked.error)
            finally:
                call.task = None  # its error may refer to this frame, and so to the call
                if call.held_by is not None or beginning is not None:
                    error = sys.exc_info()[1]
                    watch.call_ended(self.waited_for, self.label, call, beginning, error)

    @abstractmethod
    def _assert_may_wait(self) -> None:
        """Raise an error if the current task would wait for itself."""

    def add(self, call: Call[Any]) -> None:
        """Let a call wait in the last group of its loop, or in a new one."""
        loop = call.get_loop()
        group = self._last.get(loop)
        if group is not None and group.join(call):
            return
        for group in list(self._groups):
            if group.loop.is_closed():  # its calls would keep it alive for ever
                self.forget(group)
        call.line = line = Line(loop)
        line.calls[call] = None
        self.lead(line)
        line.look_at(call)

    def lead(self, line: Line) -> None:
        """Begin a group for the calls in ``line``."""
        line.group = group = self._new_group(line)
        group.start()
        self._last[line.loop] = group
        self._groups.add(group)

    @abstractmethod
    def _new_group(self, line: Line) -> Group:
        """Return a group for the calls in ``line``, not started yet."""

    def forget(self, group: Group) -> None:
        """Drop all references to a group that has ended: it refers to the file and its threads."""
        self._groups.discard(group)
        if self._last.get(group.loop) is group:
            self._last.pop(group.loop, None)

    def send_away(self, error: Callable[[], Exception]) -> None:
        """Raise ``error()`` in all waiting calls. This may be called from any thread."""
        for line in [group.line for group in list(self._groups)]:
            if line is not None:
                call_unless_closed(line.loop, line.fail_all, error)
