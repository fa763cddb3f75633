"""Statistics of an engine: its connections, statements and transactions."""

from __future__ import annotations

from dataclasses import dataclass, field

from .lines import Holder, Waits
from .snapshot import Snapshot, counter, rows


@dataclass(frozen=True, slots=True, kw_only=True)
class TextStatistics(Snapshot):
    """The runs of one SQL text: how many, and their seconds in SQLite, without waits.

    A result that is streamed counts up to its first rows. ``sql`` is cut where it is long.
    """

    sql: str
    runs: int = counter()
    seconds: float = counter(0.0)
    longest_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementsStatistics(Snapshot):
    """The statements of an engine.

    ``inline`` have run on the event loop, ``in_thread`` in a thread. ``too_long_inline`` took
    longer on the loop than is good for it, or were stopped there and ran again in a thread.
    ``failed`` raised an error. ``seconds`` is their time in SQLite. ``slowest`` are the fifty texts
    with the longest single runs, the longest first; in a difference, a text that was not among the
    earlier fifty, or was forgotten since, counts from its first run.
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
        """The number of statements that have run to their end."""
        return self.inline + self.in_thread


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionsStatistics(Snapshot):
    """The transactions of an engine that have ended.

    ``reads`` have only read. ``commits`` and ``rollbacks`` have written, or may have; functions
    that share a COMMIT count once. ``commit_seconds`` is the time in COMMIT, with the disk's.
    ``lost`` were ended by SQLite itself (a full disk, a time limit).
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

    At most ``capacity`` are open, None for no limit: ``on_loan`` ones are checked out, ``at_rest``
    ones in the pool, and ``kept`` ones warm, to be used before a new one is opened. ``opened``
    counts those ever opened, ``thrown_away`` those that SQLAlchemy threw away (after a
    cancellation, say), ``kept_after_all`` those of them that were good and kept. ``checkouts``
    counts checkouts.
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

    ``holders`` have its connections, the longest first; ``waiting`` tasks are in line for one, and
    ``waits`` how long they have waited. A writer's line is the turn's.
    """

    role: str
    connections: ConnectionsStatistics = field(default_factory=ConnectionsStatistics)
    holders: tuple[Holder, ...] = ()
    waiting: int = 0
    waits: Waits = field(default_factory=Waits)
    statements: StatementsStatistics = field(default_factory=StatementsStatistics)
    transactions: TransactionsStatistics = field(default_factory=TransactionsStatistics)
