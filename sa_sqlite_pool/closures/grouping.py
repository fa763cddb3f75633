"""Group commit: consecutive calls of ``run_write()`` share a turn and a COMMIT.

They share one place in line, as long as no other request for the turn has arrived since:

    Line                 | run_write()             | db.write()
    group of a           | a: no group is last     |
    group of a, b        | b: the group is last    |
    group of a, b; c     |                         | c
    group of a, b; c; d  | d: c is last            |

So a group overtakes no other request, and the longer the line, the larger the group. It does not
wait to become larger.

A separate task leads it, so that a caller's cancellation does not affect other callers. A group
belongs to one event loop, and ends with it, as do its callers.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, final

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import PoolProxiedConnection

from ..compat.background import start_task
from ..compat.greenlets import greenlet_spawn
from ..compat.sqlalchemy_core import raw_connection
from ..driver.adapter import SQLiteConnection
from ..driver.executor import Executor
from ..execution.awaited import Awaited
from ..execution.jobs import Job
from ..execution.mailbox import Mailbox
from ..pools.impl import WriterPool
from ..system.clock import Timer, call_at, call_later, loop_time, time
from ..system.forks import renew_after_fork
from ..system.loop_state import call_unless_closed, of_running_loop
from ..transactions.locks import NotBegun, Patience, pause
from ..turn.waits import WaitedFor
from ..turn.write_turn import place_in_line
from .borrowed import give_back
from .deferral import DeferredKeys
from .shared_transaction import SharedTransaction, for_another
from .thread_connection import ThreadConnection

T = TypeVar("T")

# Seconds that a cancellation waits for a running function, which is then left to run.
_LET_GO_SECONDS = 1.0

# Seconds during which calls may join: only a checkout applies pool_recycle and pool_pre_ping.
_LONGEST_SECONDS = 1.0

# The leader waits as long as any call of the group does; each call has its own deadline.
_FOR_EVER_SECONDS = 1_000_000.0


@final
class Call(Awaited[T]):
    """One call of ``run_write()``. It is taken once: to run it, or to ensure that it never runs.

    ``deadline`` is the loop time until which it waits, and ``due`` is when its ``group`` has to
    check it: at the deadline, or earlier, ``long`` seconds after it began. ``began`` and
    ``taken_at`` are the monotonic times at which its wait began, and ended because it was taken to
    run; ``held_by`` describes what blocked it after a long wait, and is None if there was none.
    ``cancelled`` is True once no task awaits it any more.
    """

    cancelled = False
    held_by: str | None = None
    taken_at: float | None = None
    group: Group

    def __init__(
        self, body: Callable[[ThreadConnection], T], timeout: float, long: float | None
    ) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._body = body
        now = loop_time(loop)
        self.deadline = self.due = now + timeout
        if long is not None and long < timeout:
            self.due = now + long
        self.began = time.monotonic()
        self.task = asyncio.current_task(loop)
        self.context = contextvars.copy_context()
        self._taken = threading.Lock()

    @property
    def taken(self) -> bool:
        return self._taken.locked()

    def take(self) -> bool:
        """Take the call, and return True, for the first caller only."""
        return self._taken.acquire(blocking=False)

    # -- in the thread --------------------------------------------------------------------------

    def run(self, here: ThreadConnection) -> None:
        try:
            self._result = self._body(here)
            here.assert_committed()
        except BaseException as error:  # raised again where the call is awaited
            self._error = error

    def lose(self, error: BaseException) -> None:
        """Set ``error`` as the outcome of a call that has none. Any thread may call this."""
        if self._error is None and not hasattr(self, "_result"):
            self._error = error

    # -- in the loop ----------------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """End a call that has not run, and never will. This is called outside any task."""
        self._error = error
        self.report()

    def _begin_to_stop(self) -> None:
        if self.cancelled:
            return
        self.cancelled = True
        if self.take():
            self._loop.call_soon(self.report)
            self.group.end_if_unwanted()
        else:
            call_later(self._loop, _LET_GO_SECONDS, self.report)


@final
class Group:
    """Calls that share a place in line, and the task that leads them."""

    def __init__(self, groups: Groups, first: Call[Any]) -> None:
        self._groups = groups
        self._loop = first.get_loop()
        self._post = of_running_loop(Mailbox).post
        self._takes_until = loop_time(self._loop) + _LONGEST_SECONDS
        self._calls: deque[Call[Any]] = deque([first])
        first.group = self
        self._running: list[Call[Any]] = []
        self._closed = False
        self._timer: Timer | None = None  # due before any call that waits
        pool = groups.pool
        self._turn = pool.turn
        self._not_in_time: Callable[[float], Exception] = self._turn.not_in_time
        self._place = pool.stand_in_line()
        self._led_by: asyncio.Task[Any] | None = None
        self._job: Job[None] | None = None
        work = self._lead()
        try:
            # An eager task factory runs it now, up to its first wait: the first call must be there.
            self._leader = start_task(work, f"group commit of {self._turn.name}")
        except BaseException:  # otherwise, no task would take the turn from this place, or leave it
            work.close()
            self._place.leave()
            raise
        if self._led_by is None:
            # Until it begins. Otherwise, the caller would be considered the holder of the turn.
            task = self._leader if isinstance(self._leader, asyncio.Task) else None
            self._place.hand_to(task)
        # Not in the first caller's context, which the callback would keep alive.
        self._leader.add_done_callback(self._led, context=contextvars.Context())
        self._look_at(first.due)

    def takes(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether another call may join, and overtake no other request."""
        return (
            self._loop is loop
            and not self._closed
            and self._place.is_last
            and loop_time(loop) < self._takes_until
        )

    def add(self, call: Call[Any]) -> None:
        self._calls.append(call)
        call.group = self
        if self._timer is not None and call.due < self._timer.when():
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._look_at(call.due)

    # -- its leader -----------------------------------------------------------------------------

    async def _lead(self) -> None:
        self._led_by = asyncio.current_task()
        assert self._led_by is not None
        self._place.hand_to(self._led_by)
        place_in_line.set(self._place)
        fairy = await greenlet_spawn(raw_connection, self._groups.engine.sync_engine)
        connection = fairy.dbapi_connection
        assert isinstance(connection, SQLiteConnection)
        executor = connection.executor
        try:
            while self._calls:
                await self._share(executor, fairy)
                if executor.worker.closed_by_application:
                    break  # a function has closed it: the others run on another connection
        finally:
            self._closed = True
            await give_back(fairy, executor)

    async def _share(self, executor: Executor, fairy: PoolProxiedConnection) -> None:
        """Run one transaction, for as many calls as may share it."""
        shared = SharedTransaction(
            *(executor, fairy, self._take_next, self._have_run),
            *(self._groups.deferred_keys, self._groups.threads),
        )
        try:
            if not executor.transaction.writing.begun:
                await self._begin(executor)
            self._job = None
            self._job = executor.worker.run(shared, interruptible=False)
            await self._job
        except NotBegun:
            await self._wait_for_lock(executor)
            return
        executor.transaction.after_work()
        if executor.authorizer.attached and not executor.worker.closed_by_application:
            await executor.transaction.attached.move_large_logs(executor.worker, self._turn)

    async def _begin(self, executor: Executor) -> None:
        writing, checkout = executor.transaction.writing, executor.transaction.checkout
        if writing.begin_nowait(checkout):
            return
        self._not_in_time = self._turn.file_not_in_time
        self._place.context = self._calls[0].context if self._calls else None
        patience = Patience(executor.rules, checkout, writing=True, seconds=_FOR_EVER_SECONDS)
        try:
            await writing.begin(patience, checkout)
        finally:
            self._place.context = None
        self._not_in_time = self._turn.not_in_time

    async def _wait_for_lock(self, executor: Executor) -> None:
        rules, transaction = executor.rules, executor.transaction
        self._not_in_time = lambda seconds: Patience(
            rules, transaction.checkout, writing=True, seconds=seconds
        ).not_in_time()
        began = time.monotonic()
        await pause()
        transaction.writing.others_had_lock(time.monotonic() - began)

    def _take_next(self) -> Call[Any] | None:
        """Take and return the next call not taken yet, or return None. Runs in the thread."""
        while self._calls:
            # It is removed from the line last: if there is no memory, it still gets that error.
            now, call = time.monotonic(), self._calls[0]
            self._running.append(call)
            self._calls.popleft()
            if call.take():
                call.taken_at = now
                return call
            self._running.pop()
        return None

    def _have_run(self, clean: bool) -> None:
        """Resume the calls that were taken. This runs in the thread.

        If the state of the connection has changed, no other call joins: the check-in comes first.
        """
        if not clean:
            self._closed = True
        if self._running:
            self._post(self._report)

    def _report(self) -> None:
        # Before the leader resumes: calls that these tasks make at once are next in the group.
        running = self._running
        try:
            while running:
                running.pop(0).report()
        except BaseException:  # KeyboardInterrupt in a task: the other tasks still resume
            self._post(self._report)
            raise

    def _led(self, leader: asyncio.Future[None]) -> None:
        """Close the group after its leader has ended, in whatever way."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._place.leave()
        self._groups.forget(self)
        job, self._job = self._job, None
        if self._running and job is not None and job.let_go:  # otherwise, their thread reports them
            self._lose_running(leader)
        if leader.cancelled():
            # Not by a caller. If the loop ends, the calls are also cancelled in this iteration.
            self._loop.call_soon(self._go_on_without)
        elif error := leader.exception():
            self._fail_all(lambda: for_another(error))
        else:
            self._go_on_without()

    def _lose_running(self, leader: asyncio.Future[None]) -> None:
        """Report calls that their thread has finished but not reported, as for lack of memory."""
        error = None if leader.cancelled() else leader.exception()
        for call in self._running:
            call.lose(asyncio.CancelledError() if error is None else for_another(error))
        self._report()

    def _go_on_without(self) -> None:
        for call in self._calls:
            if not call.taken:
                try:
                    self._groups.add(call)
                except Exception as error:  # otherwise, the call would wait for ever
                    if call.take():
                        call.fail(error)

    # -- calls that no longer wait --------------------------------------------------------------

    def send_away(self, error: Callable[[], Exception]) -> None:
        """Raise ``error()`` in its waiting calls. This may be called from any thread."""
        call_unless_closed(self._loop, self._fail_all, error)

    def _fail_all(self, error: Callable[[], BaseException]) -> None:
        for call in list(self._calls):
            if call.take():
                call.fail(error())

    def _look_at(self, when: float) -> None:
        # Not in the caller's context, which the timer would keep alive.
        context = contextvars.Context()
        self._timer = call_at(self._loop, when, self._look_at_calls, context=context)

    def _look_at_calls(self) -> None:
        """Fail the calls that are overdue; note what blocks those that have waited for long."""
        now, next_due, failed = loop_time(self._loop), float("inf"), False
        self._timer = None
        for call in list(self._calls):
            if call.deadline <= now and call.take():
                self._groups.pool.counts.functions_timed_out += 1
                call.fail(self._not_in_time(self._groups.timeout))
                failed = True
            if call.taken:
                continue
            if call.due <= now:
                call.held_by, call.due = self._turn.line.describe_holders(), call.deadline
            next_due = min(next_due, call.due)
            if call.held_by is None:  # the calls behind it have not waited for long, either
                break
        if next_due < float("inf"):
            self._look_at(next_due)
        if failed:
            self.end_if_unwanted()

    def end_if_unwanted(self) -> None:
        """Leave the line if none of its calls waits any more. Running calls end first."""
        if all(call.taken for call in list(self._calls)):
            self._closed = True
            self._leader.cancel()


@final
class Groups:
    """All calls of ``run_write()`` on one writer engine. ``together``: they may share a COMMIT.

    ``threads`` are those in which a function runs. Any number of event loops may share this object.
    """

    def __init__(self, engine: AsyncEngine, timeout: float, *, together: bool) -> None:
        self.engine = engine
        self.threads: set[int] = set()
        self.timeout = timeout
        self.deferred_keys = DeferredKeys()
        self._together = together
        self.renew_in_child()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        """Forget the parent's groups."""
        self._last: Group | None = None
        self._groups: set[Group] = set()

    @property
    def pool(self) -> WriterPool:
        pool = self.engine.pool
        assert isinstance(pool, WriterPool)
        return pool

    async def run(self, body: Callable[[ThreadConnection], T]) -> T:
        """Run ``body`` in a transaction that is committed when this returns.

        Raise :class:`~sa_sqlite_pool.WriteTimeout` if it could not begin in time. A cancellation
        before it has begun drops it; a later one rolls it back, unless the function has returned:
        then it is committed with its group.
        """
        pool, turn = self.pool, self.pool.turn
        turn.assert_not_held()
        watch = pool.wait_watch
        call = Call(body, self.timeout, watch.limit)
        beginning = None if watch.observer is None else watch.beginning(turn.line)
        try:
            self.add(call)
        except BaseException:  # the stack is exhausted, or a signal handler has raised it
            call.take()  # otherwise, it would run, and its outcome would be lost
            raise
        try:
            return await call
        finally:
            if call.held_by is not None or beginning is not None:
                error = sys.exc_info()[1]
                watch.call_ended(WaitedFor.TURN, turn.name, call, beginning, error)

    def add(self, call: Call[Any]) -> None:
        """Assign the call a place in line."""
        group = self._last
        if group is None or not self._together or not group.takes(call.get_loop()):
            group = self._last = Group(self, call)
            self._groups.add(group)
        else:
            group.add(call)

    def forget(self, group: Group) -> None:
        """Drop all references to a group that has ended: it refers to the file and its threads."""
        self._groups.discard(group)
        if self._last is group:
            self._last = None

    def send_away(self, error: Callable[[], Exception]) -> None:
        """Raise ``error()`` in all waiting calls."""
        for group in list(self._groups):
            group.send_away(error)
