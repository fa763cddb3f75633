"""Statistics of lines: who has permits, who waits, and how long tasks have waited."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from .snapshot import Snapshot, counter

# Upper bounds in seconds, those that OpenTelemetry advises for database operations:
# https://opentelemetry.io/docs/specs/semconv/database/database-metrics/
BOUNDS_SECONDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits(Snapshot):
    """How long tasks have waited in a line.

    ``at_once`` counts those that did not have to, and ``waited`` those that did and got what they
    waited for, or gave up: after a time-out (``timed_out``), a cancellation (``cancelled``), or
    because the database was closed (``sent_away``). ``histogram`` has the number of waits up to
    each bound of ``BOUNDS_SECONDS``, the last one for those that were longer.
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
    """What has a permit: the turn, or a connection.

    ``task`` is the name of the task, ``asked_at`` the line of the application that asked
    (``jobs.py:88``), ``now_at`` the line where the task is now. ``sql`` is its last statement, cut
    where it is long; ``idle_seconds`` is how long no statement has run, None while one runs.
    ``waits_for`` describes what the holder itself waits for.
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
    """A line for ``capacity`` permits, None for no limit.

    ``holders`` have the permits, the longest first; ``waiting`` tasks are in line, and ``waits``
    how long tasks have waited.
    """

    capacity: int | None
    holders: tuple[Holder, ...] = ()
    waiting: int = 0
    waits: Waits = field(default_factory=Waits)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnStatistics(Snapshot):
    """The write turn of a file.

    ``waiting`` tasks of this process are in line; ``waits`` are theirs. ``self_deadlocks`` counts
    tasks that would have waited for themselves (``TurnAlreadyHeldError``). ``shared`` says that
    other processes line up, too: ``other_processes`` are those that have the turn or are first in
    line now (known on Linux), and ``waits_for_processes`` how long the holder of the turn within
    this process has waited for them.
    """

    holder: Holder | None = None
    waiting: int = 0
    waits: Waits = field(default_factory=Waits)
    self_deadlocks: int = counter()
    shared: bool = False
    waits_for_processes: Waits = field(default_factory=Waits)
    other_processes: tuple[str, ...] = ()
