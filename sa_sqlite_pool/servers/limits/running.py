"""A statement that a server executes, and the limits of its time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from ...compat.greenlets import greenlet_spawn
from ...system.clock import time
from ...system.loop_state import of_running_loop
from ...turn.deadlines import Deadlines
from ...turn.permit import Permit
from ..drivers.answers import SECONDS_TO_ANSWER

# To look takes a connection, for each statement that runs for so long.
_SECONDS_TO_FIRST_LOOK = 0.05
_SECONDS_BETWEEN_LOOKS = 1.0
_SHORTEST_WAIT = 0.01

_ALMOST = 0.99  # of a limit: the server counts in whole milliseconds, and by its own clock

_STATEMENT = "sa_sqlite_pool_statement"


@final
@dataclass(frozen=True, slots=True)
class Failed:
    """What is known of a statement that has failed; an error has it until it is explained.

    These are values alone: if a listener keeps the error from being explained, it can be pickled
    all the same, and holds nothing. The fields are those of :class:`Running`.
    """

    sql: str
    limit: float | None
    seconds: float
    was_given_up: bool
    blocked_by: str | None
    seconds_blocked: float

    @property
    def timed_out(self) -> bool:
        """Whether it has run for as long as it may, but for what clocks differ by."""
        return self.limit is not None and self.seconds >= _ALMOST * self.limit


@final
class Running:
    """A statement, which runs within a block of it, from its beginning to its result or its error.

    ``limit`` is its ``statement_timeout``, None for no limit: the server ends it then, and if it
    does not, ``give_up()`` is called a moment later, which breaks the connection. ``before`` is the
    limit that the server had before it was told of this one, as it shows it; None if it was not.

    ``lock_limit`` is how long it may wait for a lock, None for no limit. Then
    ``find_blockers(self, seconds)`` is called in a greenlet. It returns how long the statement has
    waited for a lock, None if its connection is gone, and stops it if that is ``seconds`` or
    longer: ``blocked_by`` and ``seconds_blocked`` say so then.
    """

    __slots__ = (
        "_find_blockers",
        "_give_up",
        "_lock_limit",
        "_look_after",
        "_looking",
        "before",
        "began",
        "blocked_by",
        "limit",
        "permit",
        "seconds",
        "seconds_blocked",
        "sql",
        "was_given_up",
    )

    def __init__(
        self,
        sql: str,
        permit: Permit,
        limit: float | None,
        give_up: Callable[[], None],
        lock_limit: float | None,
        find_blockers: Callable[[Running, float], float | None],
    ) -> None:
        self.sql = sql
        self.permit = permit
        self.limit = limit
        self.before: str | None = None
        self.blocked_by: str | None = None
        self.seconds = 0.0
        self.seconds_blocked = 0.0
        self.was_given_up = False
        self._give_up = give_up
        self._lock_limit = lock_limit
        self._look_after = max(_SECONDS_TO_FIRST_LOOK, lock_limit or 0.0)
        self._find_blockers = find_blockers
        self._looking: asyncio.Task[None] | None = None
        self.began = time.monotonic()

    def __enter__(self) -> None:
        """Start the timers, which all statements of the event loop share."""
        self.began = time.monotonic()
        self.permit.last_sql, self.permit.idle_since = self.sql, None
        deadlines = of_running_loop(Deadlines)
        if self.limit is not None:
            deadlines.add(self.limit + SECONDS_TO_ANSWER, self._too_late)
        if self._lock_limit is not None:
            deadlines.add(self._look_after, self._look)

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        """Stop them, and note that the connection is idle, and of which statement an error is."""
        ended = self.permit.idle_since = time.monotonic()
        self.seconds = ended - self.began
        deadlines = of_running_loop(Deadlines)
        if self.limit is not None:
            deadlines.discard(self.limit + SECONDS_TO_ANSWER, self._too_late)
        if self._lock_limit is not None:
            deadlines.discard(self._look_after, self._look)
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if error is not None:
            vars(error)[_STATEMENT] = Failed(
                *(self.sql, self.limit, self.seconds, self.was_given_up),
                *(self.blocked_by, self.seconds_blocked),
            )

    def _too_late(self) -> None:
        self.was_given_up = True
        self._give_up()

    def _look(self) -> None:
        self._looking = asyncio.create_task(
            self._look_for_blockers(), name="sa_sqlite_pool: what holds the lock?"
        )

    async def _look_for_blockers(self) -> None:
        assert self._lock_limit is not None
        waited: float | None
        try:
            waited = await greenlet_spawn(self._find_blockers, self, self._lock_limit)
        except Exception:  # the server takes no connection: it is asked later
            waited = 0.0
        if self._looking is not asyncio.current_task():
            return  # the statement has ended meanwhile
        if self.blocked_by is None and waited is not None:
            if waited:
                self._look_after = max(_SHORTEST_WAIT, self._lock_limit - waited)
            else:
                self._look_after = max(_SECONDS_BETWEEN_LOOKS, self._lock_limit)
            of_running_loop(Deadlines).add(self._look_after, self._look)


def taken_statement_of(error: BaseException) -> Failed | None:
    """Return the statement that has raised an error, None if none has; the error forgets it."""
    found: Failed | None = vars(error).pop(_STATEMENT, None)
    return found
