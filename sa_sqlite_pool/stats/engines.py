"""Statistics of an engine: its connections, statements and transactions."""

from __future__ import annotations

from dataclasses import dataclass, field

from .lines import Holder, Waits
from .snapshot import Snapshot, counter, rows


@dataclass(frozen=True, slots=True, kw_only=True)
class TextStatistics(Snapshot):
    """The runs of one SQL text: their number, and their time in SQLite in seconds, without waits.

    The time of a streamed result is measured up to its first rows. ``sql`` is truncated if long.
    """

    sql: str
    runs: int = counter()
    seconds: float = counter(0.0)
    longest_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementsStatistics(Snapshot):
    """The statements of an engine.

    ``inline`` statements ran on the event loop, ``in_thread`` ones in a thread.
    ``too_long_inline`` ones blocked the loop for too long, or were stopped there and ran again in
    a thread. ``failed`` ones raised an error. ``seconds`` is their time in SQLite. ``slowest``
    lists the fifty texts with the longest single runs, longest first; in a difference, a text that
    was not among the earlier fifty, or has been dropped since, is counted from its first run.
    """

    inline: int = counter()
    in_thread: int = counter()
    too_long_inline: int = counter()
    failed: int = counter()
    seconds: float = counter(0.0)
    longest_seconds: float = 0.0
    slowest: tuple[TextStatistics, ...] = rows("sql")

    @property
    def runs(self) -> int:
        """The number of statements that have run to completion."""
        return self.inline + self.in_thread


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionsStatistics(Snapshot):
    """The transactions of an engine that have ended.

    ``reads`` only read. ``commits`` and ``rollbacks`` wrote, or may have; functions that share a
    COMMIT count as one. ``commit_seconds`` is the time spent in COMMIT, including disk writes.
    ``lost`` transactions were ended by SQLite itself (disk full, a time limit).
    """

    reads: int = counter()
    commits: int = counter()
    rollbacks: int = counter()
    lost: int = counter()
    commit_seconds: float = counter(0.0)
    longest_commit_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionsStatistics(Snapshot):
    """The connections of an engine.

    At most ``capacity`` are open (None: no limit). ``on_loan`` connections are checked out,
    ``at_rest`` ones are in the pool, and ``kept`` ones are warm and used before a new one is
    opened. ``opened`` counts all connections ever opened, ``thrown_away`` those that SQLAlchemy
    discarded (for example after a cancellation), and ``kept_after_all`` how many of these were
    still usable and kept. ``checkouts`` counts checkouts.
    """

    capacity: int | None = None
    on_loan: int = 0
    at_rest: int = 0
    kept: int = 0
    opened: int = counter()
    thrown_away: int = counter()
    kept_after_all: int = counter()
    checkouts: int = counter()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatistics(Snapshot):
    """One engine: ``role`` is ``"reader"``, ``"writer"``, or ``"auto"`` for a ``SQLitePool``.

    ``holders`` lists what holds its connections, longest first; ``waiting`` is the number of tasks
    in line for one, and ``waits`` how long tasks have waited. A writer's line is the turn's.
    """

    role: str
    connections: ConnectionsStatistics = field(default_factory=ConnectionsStatistics)
    holders: tuple[Holder, ...] = ()
    waiting: int = 0
    waits: Waits = field(default_factory=Waits)
    statements: StatementsStatistics = field(default_factory=StatementsStatistics)
    transactions: TransactionsStatistics = field(default_factory=TransactionsStatistics)
