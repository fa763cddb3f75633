"""The table of what is known about the statements of one connection, by SQL text."""

from __future__ import annotations

from collections import OrderedDict
from typing import final

from ..sqlite.examination import Finding
from ..sqlite.statements import (
    LONGEST_REMEMBERED,
    Kind,
    classify,
    delimits,
    dropped_table,
    may_defer,
)
from ..sqlite.tokens import first_word, is_followed_by_another
from ..stats.counts import ConnectionCounts, Runs

# The most CPU seconds that a short statement takes in the thread,
SHORT_SECONDS = 0.000_3
# CPU seconds per step, from one row to the next, above which steps are long,
LONG_STEP_SECONDS = 0.000_2
# and the number of consecutive short runs after which a read or a write is known to be short.
SHORT_READS, SHORT_WRITES = 1, 3

# The number of runs in the thread after the first inline run that was too long, and its maximum.
_FIRST_PENALTY, _MOST_PENALTY = 8, 1_024

# The number of short inline runs, per run of the penalty, after which the penalty is reset.
_FORGIVING = 100

_MOST_CALLING = 1_000

_DDL = frozenset({"ALTER", "CREATE", "DROP"})

# Kinds of texts in whose place the package may send another one, later, or nothing.
_REPLACED = frozenset({Kind.BEGIN, Kind.BEGIN_WRITE, Kind.END, Kind.SAVEPOINT})


@final
class StatementFacts:
    """What is known about one SQL text.

    ``kind`` determines what the statement needs before it may run: according to its text
    (``kind_of_text``), or to SQLite's ``finding``, which is None while the text is sufficient. It
    is UNKNOWN for a text that should begin or end a transaction, and is not surely well-formed.
    ``calls_functions`` is True if it calls a function of the application, which may wait. ``short``
    counts consecutive short runs in the thread; it stays 0 for statements that call functions, and
    during the penalty for a run too long for the event loop. ``inline`` counts runs on the loop
    since then. ``may_defer`` says that foreign keys may be checked at COMMIT because of it.
    ``is_ddl`` says that it changes the schema, and ``drops`` is the table that it drops, if any.
    ``steps_are_long`` says that SQLite computes for a long time between two rows, as an aggregate
    may. ``runs`` counts its runs.
    """

    __slots__ = (
        "_barred",
        "_kind_at_first",
        "_penalty",
        "calls_functions",
        "drops",
        "finding",
        "inline",
        "is_ddl",
        "kind",
        "kind_of_text",
        "may_defer",
        "runs",
        "short",
        "sql",
        "steps_are_long",
    )

    def __init__(self, sql: str, runs: Runs) -> None:
        self.sql = sql
        self.runs = runs
        kind = classify(sql)
        if kind in _REPLACED and is_followed_by_another(sql):
            kind = Kind.UNKNOWN  # sent as it is, and refused by the driver
        self.kind_of_text = kind
        if kind in _REPLACED and not delimits(sql):
            kind = Kind.UNKNOWN  # sent as it is: SQLite or the driver refuses it
        self.kind = self._kind_at_first = kind
        self.may_defer = may_defer(sql)
        self.is_ddl = kind is Kind.WRITE and first_word(sql) in _DDL
        self.drops = dropped_table(sql)
        self.finding: Finding | None = None
        self.calls_functions = False
        self.short = 0
        self.inline = 0
        self.steps_are_long = False
        self._barred = 0  # how many of the next runs must be in the thread
        self._penalty = 0

    def ran_in_thread(self, *, short: bool, steps_are_long: bool = False) -> None:
        """Record a run in a thread."""
        if self._barred:
            self._barred -= 1
        counts = short and not self._barred and not self.calls_functions
        self.short = self.short + 1 if counts else 0
        self.steps_are_long = steps_are_long

    def called_functions(self) -> None:
        """Record that a run has called an application's function."""
        self.calls_functions, self.short = True, 0

    def ran_too_long(self) -> None:
        """Record a run on the event loop that took too long."""
        forgiven = self.inline >= _FORGIVING * self._penalty
        longer = _FIRST_PENALTY if forgiven else 2 * self._penalty
        self._penalty = max(_FIRST_PENALTY, min(longer, _MOST_PENALTY))
        self._barred = self._penalty
        self.short = self.inline = 0

    def found(self, finding: Finding) -> None:
        """Record SQLite's finding about the statement."""
        self.finding, self.kind = finding, finding.kind

    def forget_finding(self) -> None:
        """Revert to the kind without the finding."""
        self.finding, self.kind = None, self._kind_at_first


@final
class FactsTable:
    """The facts of at most ``size`` texts; the least recently used is dropped first.

    Texts of more than 4,096 characters are not kept: they are new each time. ``counts`` are the
    connection's counters. Texts that call functions of the application are remembered even after
    their facts are dropped, since SQLite reports calls only when it compiles a text, and
    ``sqlite3`` may keep it compiled for longer. After a thousand of these texts, every new one is
    assumed to call functions.
    """

    __slots__ = ("_by_text", "_calling", "_counts", "_size")

    def __init__(self, size: int, counts: ConnectionCounts) -> None:
        self._size = size
        self._counts = counts
        self._by_text: OrderedDict[str, StatementFacts] = OrderedDict()
        self._calling: set[str] = set()  # texts that call functions and whose facts were dropped

    def __len__(self) -> int:
        return len(self._by_text)

    def __contains__(self, sql: str) -> bool:
        return sql in self._by_text

    def of(self, sql: str) -> StatementFacts:
        """Return what is known about ``sql``, at least its kind."""
        facts = self._by_text.get(sql)
        if facts is None:
            return self._add(sql)
        self._by_text.move_to_end(sql)
        return facts

    def _add(self, sql: str) -> StatementFacts:
        if len(sql) > LONGEST_REMEMBERED:
            return StatementFacts(sql, self._counts.others)
        facts = StatementFacts(sql, self._counts.of(sql))
        facts.calls_functions = sql in self._calling or len(self._calling) >= _MOST_CALLING
        self._by_text[sql] = facts
        if len(self._by_text) > self._size:
            _, dropped = self._by_text.popitem(last=False)
            self._counts.drop(dropped.sql)
            if dropped.calls_functions and len(self._calling) < _MOST_CALLING:
                self._calling.add(dropped.sql)
        return facts

    def forget_findings(self) -> None:
        """Discard the findings: the temp schema or attached files, and so names, have changed."""
        for facts in self._by_text.values():
            if facts.finding is not None:
                facts.forget_finding()
