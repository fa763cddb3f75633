"""Group commit: consecutive calls of ``run_write()`` share a turn and a COMMIT.

They share one place in line, as long as no other request for the turn has arrived since:

    Line                 | run_write()             | db.write()
    group of a           | a: no group is last     |
    group of a, b        | b: the group is last    |
    group of a, b; c     |                         | c
    group of a, b; c; d  | d: c is last            |

So a group overtakes no other request, and the longer the line, the larger the group. It does not
wait to become larger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, final

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import PoolProxiedConnection

from ..driver.executor import Executor
from ..pools.impl import WriterPool
from ..system.clock import loop_time, time
from ..transactions.locks import NotBegun, Patience, pause
from ..turn.waits import WaitedFor
from ..turn.write_turn import place_in_line
from .deferral import DeferredKeys
from .group import Group, Groups
from .line import Call, Line
from .shared_transaction import SharedTransaction

# Seconds during which calls may join: only a checkout applies pool_recycle and pool_pre_ping.
_LONGEST_SECONDS = 1.0

# The leader waits as long as any call of the group does; each call has its own deadline.
_FOR_EVER_SECONDS = 1_000_000.0


@final
class WriteGroup(Group):
    """Calls that share a place in line for the turn."""

    _groups: Writes

    def __init__(self, groups: Writes, line: Line) -> None:
        super().__init__(groups, line)
        self._takes_until = loop_time(self.loop) + _LONGEST_SECONDS
        pool = groups.pool
        self._turn = pool.turn
        self._too_late: Callable[[float], Exception] = self._turn.not_in_time
        self._place = pool.stand_in_line()
        self._led_by: asyncio.Task[Any] | None = None

    def start(self) -> None:
        try:
            super().start()
        except BaseException:  # otherwise, no task would take the turn from this place, or leave it
            self._place.leave()
            raise
        if self._led_by is None:
            # Until it begins. Otherwise, the caller would be considered the holder of the turn.
            leader = self._leader
            self._place.hand_to(leader if isinstance(leader, asyncio.Task) else None)

    def join(self, call: Call[Any]) -> bool:
        """Let ``call`` wait behind the others, unless it would overtake another request."""
        together = self._groups.together and loop_time(self.loop) < self._takes_until
        return together and self._place.is_last and super().join(call)

    def not_in_time(self) -> Exception:
        self._groups.pool.counts.functions_timed_out += 1
        return self._too_late(self._groups.timeout)

    async def _get_ready(self) -> None:
        self._led_by = asyncio.current_task()
        assert self._led_by is not None
        self._place.hand_to(self._led_by)
        place_in_line.set(self._place)

    async def _serve(self, executor: Executor, proxied: PoolProxiedConnection) -> None:
        while self.waiting:
            await self._share(executor, proxied)
            if executor.worker.closed_by_application:
                return  # a function has closed it: the others run on another connection

    async def _share(self, executor: Executor, proxied: PoolProxiedConnection) -> None:
        """Run one transaction, for as many calls as may share it."""
        shared = SharedTransaction(
            *(executor, proxied, self.take, self._have_run),
            *(self._groups.deferred_keys, self._groups.threads),
        )
        try:
            if not executor.transaction.writing.begun:
                await self._begin(executor)
            await self._hop(executor, shared)
        except NotBegun:
            await self._wait_for_lock(executor)
            return
        executor.transaction.after_work()
        if executor.authorizer.attached and not executor.worker.closed_by_application:
            await executor.transaction.attached.move_large_logs(executor.worker, self._turn)

    def _have_run(self, clean: bool) -> None:
        """Note that the calls that were taken have their outcomes. This runs in the thread.

        If the state of the connection has changed, no other call joins: the check-in comes first.
        """
        self._running = None
        if not clean:
            self._closed = True

    async def _begin(self, executor: Executor) -> None:
        writing, permit = executor.transaction.writing, executor.transaction.permit
        if writing.begin_nowait(permit):
            return
        self._too_late = self._turn.file_not_in_time
        if self.line is not None:
            self._place.context = next((call.context for call in self.line.calls), None)
        patience = Patience(executor.rules, permit, writing=True, seconds=_FOR_EVER_SECONDS)
        try:
            await writing.begin(patience, permit)
        finally:
            self._place.context = None
        self._too_late = self._turn.not_in_time

    async def _wait_for_lock(self, executor: Executor) -> None:
        rules, transaction = executor.rules, executor.transaction
        self._too_late = lambda seconds: Patience(
            rules, transaction.permit, writing=True, seconds=seconds
        ).not_in_time()
        began = time.monotonic()
        await pause()
        transaction.writing.others_had_lock(time.monotonic() - began)

    def _leader_ended(self, leader: asyncio.Future[None]) -> None:
        self._place.leave()
        self._led_by = None
        super()._leader_ended(leader)


@final
class Writes(Groups):
    """All calls of ``run_write()`` on one writer engine. ``together``: they may share a COMMIT."""

    waited_for = WaitedFor.TURN
    leaders = "group commit"

    def __init__(self, engine: AsyncEngine, label: str, timeout: float, *, together: bool) -> None:
        super().__init__(engine, label, timeout, set())
        self.together = together
        self.deferred_keys = DeferredKeys()

    @property
    def pool(self) -> WriterPool:
        pool = super().pool
        assert isinstance(pool, WriterPool)
        return pool

    def _assert_may_wait(self) -> None:
        self.pool.turn.assert_not_held()

    def _new_group(self, line: Line) -> WriteGroup:
        return WriteGroup(self, line)
