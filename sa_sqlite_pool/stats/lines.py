"""Statistics of lines: the holders of permits, the tasks in line, and how long tasks waited."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from .snapshot import Snapshot, counter

# Upper bounds in seconds, as OpenTelemetry recommends them for database operations:
# https://opentelemetry.io/docs/specs/semconv/database/database-metrics/
BOUNDS_SECONDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits(Snapshot):
    """How long tasks have waited in a line.

    ``at_once`` counts requests that were granted without a wait. ``waited`` counts waits that have
    ended: with a permit, a time-out (``timed_out``), a cancellation (``cancelled``), or because the
    database was closed (``sent_away``). ``histogram`` counts the waits up to each bound of
    ``BOUNDS_SECONDS``; its last item counts the longer ones.
    """

    at_once: int = counter()
    waited: int = counter()
    timed_out: int = counter()
    cancelled: int = counter()
    sent_away: int = counter()
    seconds: float = counter(0.0)
    longest_seconds: float = 0.0
    histogram: tuple[int, ...] = counter((0,) * (len(BOUNDS_SECONDS) + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder(Snapshot):
    """The holder of a permit: of the turn, or of a connection.

    ``task`` is the name of the task, ``asked_at`` the line of application code that requested the
    permit (``jobs.py:88``), ``now_at`` the line where the task is now. ``sql`` is its last
    statement, truncated if long; ``idle_seconds`` is the time since a statement last ran, None
    while one runs. ``waits_for`` describes what the holder itself is waiting for.
    """

    task: str
    seconds: float
    asked_at: str | None = None
    now_at: str | None = None
    sql: str | None = None
    idle_seconds: float | None = None
    waits_for: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LineStatistics(Snapshot):
    """A line for ``capacity`` permits (None: no limit).

    ``holders`` lists what holds the permits, longest first; ``waiting`` is the number of tasks in
    line, and ``waits`` how long tasks have waited.
    """

    capacity: int | None
    holders: tuple[Holder, ...] = ()
    waiting: int = 0
    waits: Waits = field(default_factory=Waits)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnStatistics(Snapshot):
    """The write turn of a file.

    ``waiting`` tasks of this process are in line, and ``waits`` are the waits of such tasks.
    ``self_deadlocks`` counts tasks that would have waited for themselves
    (``TurnAlreadyHeldError``). ``shared`` is True if the turn is shared with other processes:
    ``other_processes`` hold it or are first in line now (known on Linux only), and
    ``waits_for_processes`` counts the waits of this process's holder of the turn for them.
    """

    holder: Holder | None = None
    waiting: int = 0
    waits: Waits = field(default_factory=Waits)
    self_deadlocks: int = counter()
    shared: bool = False
    waits_for_processes: Waits = field(default_factory=Waits)
    other_processes: tuple[str, ...] = ()
