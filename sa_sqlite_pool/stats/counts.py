"""Counters of an engine's statements and transactions.

Each connection has its own counters. Only one thread at a time uses a connection, so no lock is
needed and no run is lost. The counters are summed when statistics are requested.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import final

from ..mutex import new_lock
from ..system.clock import time
from ..system.forks import renew_after_fork
from .engines import StatementsStatistics, TextStatistics

# The maximum number of texts that are reported, and whose runs are kept once their facts are gone.
SLOWEST = 50

_SHOWN_CHARACTERS = 1_000


@final
class Runs:
    """The runs of one SQL text on one connection, and the time they took in SQLite, in seconds.

    ``too_long`` counts runs that took too long for the event loop; ``failed`` counts runs that
    raised an error. Failed runs are not part of any other number.
    """

    __slots__ = ("failed", "in_thread", "inline", "longest", "seconds", "too_long")

    def __init__(self) -> None:
        self.inline = self.in_thread = self.too_long = self.failed = 0
        self.seconds = self.longest = 0.0

    def __iadd__(self, other: Runs) -> Runs:
        self.inline += other.inline
        self.in_thread += other.in_thread
        self.too_long += other.too_long
        self.failed += other.failed
        self.seconds += other.seconds
        self.longest = max(self.longest, other.longest)
        return self

    def ran_inline(self, seconds: float) -> None:
        """Count a run on the event loop."""
        self.inline += 1
        self.seconds += seconds
        self.longest = max(self.longest, seconds)

    def ran_in_thread(self, seconds: float) -> None:
        """Count a run in a thread."""
        self.in_thread += 1
        self.seconds += seconds
        self.longest = max(self.longest, seconds)


@final
class ConnectionCounts:
    """The counters of one connection.

    ``by_text`` maps each text whose facts are known to its runs. Of the other texts, ``slow`` keeps
    the fifty with the longest single runs, and ``others`` is the sum of the rest. Runs move between
    these under a mutex; without it, another thread that reads the counters would miss runs or count
    them twice. ``commits`` and ``rollbacks`` count transactions that may have written, ``reads``
    all other transactions that have ended. ``functions`` counts closures that have run, ``hops``
    the hops they took, and ``most_together`` is the most that have run in one hop.
    """

    __slots__ = (
        "_moving",
        "_quickest_slow",
        "by_text",
        "commit_seconds",
        "commits",
        "functions",
        "hops",
        "kept",
        "longest_commit",
        "lost",
        "most_together",
        "others",
        "reads",
        "rollbacks",
        "slow",
        "thrown_away",
    )

    def __init__(self) -> None:
        self._moving = new_lock()
        self.by_text: dict[str, Runs] = {}
        self.slow: dict[str, Runs] = {}
        self.others = Runs()
        self._quickest_slow = 0.0  # the smallest ``longest`` in ``slow``
        self.reads = self.commits = self.rollbacks = self.lost = 0
        self.commit_seconds = self.longest_commit = 0.0
        self.thrown_away = self.kept = 0
        self.functions = self.hops = self.most_together = 0

    def of(self, sql: str) -> Runs:
        """Return the runs of a text whose facts have just become known."""
        with self._moving:
            runs = self.slow.pop(sql) if sql in self.slow else Runs()
            self.by_text[sql] = runs
        return runs

    def drop(self, sql: str) -> None:
        """Drop a text whose facts are dropped; keep its runs only if it is among the slowest."""
        with self._moving:
            self._remember(sql, self.by_text.pop(sql))

    def _remember(self, sql: str, runs: Runs) -> None:
        if runs.longest <= self._quickest_slow and len(self.slow) >= SLOWEST:
            self.others += runs
            return
        self.slow[sql] = runs
        if len(self.slow) > SLOWEST:
            quickest = min(self.slow, key=lambda text: self.slow[text].longest)
            self.others += self.slow.pop(quickest)
        self._quickest_slow = min(kept.longest for kept in self.slow.values())

    def ended_by_text(self, *, rolled_back: bool) -> None:
        """Count a transaction that a statement ended, in AUTOCOMMIT or with its own text."""
        if rolled_back:
            self.rollbacks += 1
        else:
            self.commits += 1

    def committed(self, seconds: float) -> None:
        """Count a COMMIT."""
        self.commits += 1
        self.commit_seconds += seconds
        self.longest_commit = max(self.longest_commit, seconds)

    def ran_functions(self, number: int) -> None:
        """Count ``number`` functions that ran in one hop."""
        self.hops += 1
        self.functions += number
        self.most_together = max(self.most_together, number)

    def all_runs(self) -> list[tuple[str | None, Runs]]:
        """Return the runs by text; None stands for all texts not kept. Callable from any thread."""
        others = Runs()
        with self._moving:
            others += self.others
            return [(None, others), *self.by_text.items(), *self.slow.items()]

    def take_over(self, gone: ConnectionCounts) -> None:
        """Add the counters of a connection that is gone. One thread at a time may call this."""
        for sql, runs in gone.all_runs():
            if sql is None:
                self.others += runs
            elif sql in self.slow:
                self.slow[sql] += runs
            else:
                self._remember(sql, runs)
        self.add_numbers(gone)

    def add_numbers(self, other: ConnectionCounts) -> None:
        """Add all counters except the runs of statements."""
        self.reads += other.reads
        self.commits += other.commits
        self.rollbacks += other.rollbacks
        self.lost += other.lost
        self.commit_seconds += other.commit_seconds
        self.longest_commit = max(self.longest_commit, other.longest_commit)
        self.thrown_away += other.thrown_away
        self.kept += other.kept
        self.functions += other.functions
        self.hops += other.hops
        self.most_together = max(self.most_together, other.most_together)


@final
class EngineCounts:
    """The counters of one engine's connections; counters of connections that are gone are summed.

    ``opened`` counts the connections opened, ``checkouts`` the checkouts, and
    ``functions_timed_out`` the closures whose wait timed out, all since ``began``, in monotonic
    seconds.
    """

    def __init__(self) -> None:
        self.renew_in_child()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        """Reset all counters: the existing connections belong to the parent process."""
        self._mutex = new_lock()  # a thread of the parent process may have held the old one
        self.began = time.monotonic()
        self.opened = self.checkouts = self.functions_timed_out = 0
        self._past = ConnectionCounts()
        self._connections: list[tuple[weakref.ref[object], ConnectionCounts]] = []

    def new_connection(self, owner: object) -> ConnectionCounts:
        """Return the counters of a new connection, which exists as long as ``owner`` does."""
        counts = ConnectionCounts()
        with self._mutex:
            self.opened += 1
            self._add_up_gone()
            self._connections.append((weakref.ref(owner), counts))
        return counts

    def _add_up_gone(self) -> None:
        connections, self._connections = self._connections, []
        for one in connections:
            reference, counts = one
            if reference() is None:
                self._past.take_over(counts)
            else:
                self._connections.append(one)

    def _all(self) -> list[ConnectionCounts]:
        # Called, and its result read, under the mutex: each connection that is gone is added once.
        self._add_up_gone()
        return [self._past, *(counts for _, counts in self._connections)]

    def numbers(self) -> ConnectionCounts:
        """Return the sum of all counters except the runs of statements."""
        total = ConnectionCounts()
        with self._mutex:
            for counts in self._all():
                total.add_numbers(counts)
        return total

    def statements(self) -> StatementsStatistics:
        """Return the statistics of the statements on all connections."""
        total = Runs()
        with self._mutex:
            by_text = _by_text(self._all())
        for runs in by_text.values():
            total += runs
        known = ((sql, runs) for sql, runs in by_text.items() if sql is not None and runs.longest)
        slowest = sorted(known, key=lambda item: item[1].longest, reverse=True)[:SLOWEST]
        return StatementsStatistics(
            inline=total.inline,
            in_thread=total.in_thread,
            too_long_inline=total.too_long,
            failed=total.failed,
            seconds=total.seconds,
            longest_seconds=total.longest,
            slowest=tuple(_text(sql, runs) for sql, runs in slowest),
        )


def _by_text(connections: Iterable[ConnectionCounts]) -> dict[str | None, Runs]:
    found: dict[str | None, Runs] = {}
    for counts in connections:
        for sql, runs in counts.all_runs():
            shown = sql
            if sql is not None and len(sql) > _SHOWN_CHARACTERS:
                shown = sql[: _SHOWN_CHARACTERS - 1] + "…"
            total = found.setdefault(shown, Runs())
            total += runs
    return found


def _text(sql: str, runs: Runs) -> TextStatistics:
    return TextStatistics(
        sql=sql,
        runs=runs.inline + runs.in_thread,
        seconds=runs.seconds,
        longest_seconds=runs.longest,
    )
