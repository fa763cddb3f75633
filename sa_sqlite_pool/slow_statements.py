"""The log of statements that run for a long time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, final

from .reporting.events import SlowStatement, log
from .reporting.repeats import Repeats, others_left_out
from .system.clock import time
from .turn.permit import Permit, shorten
from .turn.whereabouts import Caller, caller, describe_task, whereabouts

# Milliseconds to wait for a task to await the job it sent to a thread; more if its loop is busy.
_TRIES = 10


@final
class SlowStatements:
    """The log of an engine's statements that run for ``limit`` seconds or longer (infinity: none).

    Logs once a minute for each text. ``clock`` returns monotonic seconds.
    """

    def __init__(self, limit: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = math.inf if limit is None else limit
        self._repeats = Repeats(clock)

    def report(
        self,
        database: str,
        sql: str,
        seconds: float,
        permit: Permit | None,
        place: Caller | None = None,
    ) -> None:
        """Log a statement, in the thread where it ran: an event loop's, or a connection's.

        ``permit`` is that of its connection's checkout, None if there is none. ``place`` is the
        line of the application, if the caller knows it.
        """
        left_out = self._repeats.admit((database, hash(sql)))  # a text may be megabytes long
        if left_out is None:
            return
        running = _current_task()
        task = running if permit is None else permit.task
        name = _name(task) if permit is None else permit.task_name
        if place is None and running is not None:
            place = caller()
        line = _line_in_thread(task) if place is None else str(place)
        if line is None and permit is not None and permit.asked_at is not None:
            line = str(permit.asked_at)
        event = SlowStatement(
            database=database,
            task=name,
            asked_at=line,
            sql=shorten(sql),
            seconds_run=seconds,
            left_out=left_out,
        )
        log(
            event,
            "a statement on %s ran for %.2f s: %s; executed by %s at %s; look at its EXPLAIN QUERY "
            "PLAN, or raise slow_statement_warning%s",
            *(database, seconds, event.sql, describe_task(name), line, others_left_out(left_out)),
        )


NOT_TIMED = SlowStatements(None)
"""For connections that belong to no engine."""


def _line_in_thread(task: asyncio.Task[Any] | None) -> str | None:
    """Return the line where ``task`` awaits the job that ran in this thread; None if unknown."""
    # The job may have been quick: then the task, in its own thread, is just about to await it.
    for _ in range(_TRIES):
        if task is None or not getattr(task.get_coro(), "cr_running", False):
            return whereabouts(task)
        time.sleep(0.001)
    return None


def _name(task: asyncio.Task[Any] | None) -> str | None:
    return None if task is None else task.get_name()


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
