"""A statement while the server executes it, and its time limits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, final

from ...compat.greenlets import greenlet_spawn
from ...system.clock import time
from ...system.loop_state import of_running_loop
from ...turn.deadlines import Deadlines
from ...turn.permit import Permit
from ..drivers.answers import SECONDS_TO_ANSWER, AnswerLimit
from ..pool import ServerPool
from .blockers import ask_for_holders, stop_waiting

# Each look opens a connection, for each statement that runs this long.
_SECONDS_TO_FIRST_LOOK = 0.05
_SECONDS_BETWEEN_LOOKS = 1.0
_SHORTEST_WAIT = 0.01

_ALMOST = 0.99  # of a limit: the server counts in whole milliseconds, and by its own clock

_OUTCOME = "sa_sqlite_pool_outcome"


@final
@dataclass
class Outcome:
    """What is known about a statement; its error carries it until that error is explained.

    It contains only plain values: if a listener keeps the error from being explained, the error can
    still be pickled, and keeps nothing alive. ``limit`` is the ``statement_timeout`` of the
    statement, None for no limit, and ``seconds`` is how long it ran. ``was_given_up`` says that its
    connection was broken because the server did not end it at its limit. ``blocked_by`` describes
    what held the lock for which it was cancelled after ``seconds_blocked``; None if it was not.
    """

    sql: str
    limit: float | None
    seconds: float = 0.0
    was_given_up: bool = False
    blocked_by: str | None = None
    seconds_blocked: float = 0.0

    @property
    def timed_out(self) -> bool:
        """Whether the statement ran up to its limit, apart from differences between clocks."""
        return self.limit is not None and self.seconds >= _ALMOST * self.limit


@final
class Running:
    """A block around the execution of one statement, from its beginning to its result or error.

    ``limit`` is its ``statement_timeout``, None for no limit: the server ends the statement then,
    and if it does not, ``adapted``, its connection, is broken a moment later.

    ``lock_limit`` is how long it may wait for a lock before it is cancelled, None for no limit.
    """

    __slots__ = (
        "_adapted",
        "_began",
        "_lock_limit",
        "_look_after",
        "_looking",
        "_permit",
        "_pool",
        "outcome",
    )

    def __init__(
        self,
        pool: ServerPool,
        permit: Permit,
        adapted: Any,
        sql: str,
        limit: float | None,
        lock_limit: float | None = None,
    ) -> None:
        self.outcome = Outcome(sql, limit)
        self._pool = pool
        self._permit = permit
        self._adapted = adapted
        self._lock_limit = lock_limit
        self._look_after = max(_SECONDS_TO_FIRST_LOOK, lock_limit or 0.0)
        self._looking: asyncio.Task[None] | None = None
        self._began = 0.0

    def __enter__(self) -> None:
        """Start the timers, which all statements of the event loop share."""
        self._began = time.monotonic()
        self._permit.last_sql, self._permit.idle_since = self.outcome.sql, None
        deadlines, limit = of_running_loop(Deadlines), self.outcome.limit
        if limit is not None:
            deadlines.add(limit + SECONDS_TO_ANSWER, self._too_late)
        if self._lock_limit is not None:
            deadlines.add(self._look_after, self._look)

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        """Stop the timers, mark the connection as idle, and attach the outcome to any error."""
        ended = self._permit.idle_since = time.monotonic()
        self.outcome.seconds = ended - self._began
        deadlines, limit = of_running_loop(Deadlines), self.outcome.limit
        if limit is not None:
            deadlines.discard(limit + SECONDS_TO_ANSWER, self._too_late)
        if self._lock_limit is not None:
            deadlines.discard(self._look_after, self._look)
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if error is not None:
            vars(error)[_OUTCOME] = self.outcome

    def _too_late(self) -> None:
        self.outcome.was_given_up = True
        self._pool.driver.abort(self._adapted)

    def _look(self) -> None:
        self._looking = asyncio.create_task(
            self._look_for_blockers(), name="sa_sqlite_pool: what holds the lock?"
        )

    async def _look_for_blockers(self) -> None:
        assert self._lock_limit is not None
        waited: float | None
        try:
            waited = await greenlet_spawn(self._find_blockers, self._lock_limit)
        except Exception:  # the server accepts no connection: look again later
            waited = 0.0
        if self._looking is not asyncio.current_task():
            return  # the statement has ended meanwhile
        if self.outcome.blocked_by is None and waited is not None:
            if waited:
                self._look_after = max(_SHORTEST_WAIT, self._lock_limit - waited)
            else:
                self._look_after = max(_SECONDS_BETWEEN_LOOKS, self._lock_limit)
            of_running_loop(Deadlines).add(self._look_after, self._look)

    def _find_blockers(self, lock_limit: float) -> float | None:
        """Return how long the statement has waited for a lock; cancel it after ``lock_limit``.

        Its outcome then records what holds the lock. Return None if its connection is gone. Must
        run in a greenlet.
        """
        pool, driver = self._pool, self._pool.driver
        if driver.is_broken(self._adapted):
            return None
        process = driver.process_id(self._adapted)
        with pool.opened_aside(pool.primary) as asking, AnswerLimit(driver, asking):
            waited, holders = ask_for_holders(pool, asking, process)
            if not holders:
                return 0.0
            if waited is None:
                waited = time.monotonic() - self._began
            if waited >= lock_limit:  # recorded before the statement can fail
                self.outcome.blocked_by, self.outcome.seconds_blocked = holders, waited
                stop_waiting(driver, asking, process)
        return waited


def taken_outcome_of(error: BaseException) -> Outcome | None:
    """Remove from an error the outcome of the statement that raised it, and return the outcome.

    Return None if no statement raised it.
    """
    found: Outcome | None = vars(error).pop(_OUTCOME, None)
    return found
