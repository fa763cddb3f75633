"""What is known of the statements of one connection, by their SQL text: one table for all of it."""

from __future__ import annotations

from collections import OrderedDict
from typing import final

from ..sqlite.examination import Finding
from ..sqlite.statements import LONGEST_REMEMBERED, classify

# Seconds of the processor that a short statement takes in the thread, and
SHORT_SECONDS = 0.000_3
# that a step of a statement takes, from one row to the next, to be called long,
LONG_STEP_SECONDS = 0.000_2
# and after how many such runs, one after the other, a read and a write are known to be short.
_READS, _WRITES = 1, 3

# Runs in the thread that follow the first inline run that was too long, and at most.
_FIRST_PENALTY, _MOST_PENALTY = 8, 1_024

# Inline runs that were short, for each run of the penalty, after which all is forgiven.
_FORGIVING = 100


@final
class StatementFacts:
    """What is known of one SQL text.

    ``kind`` is what it needs before it may run: as its text says (``kind_of_text``), or as SQLite
    has said in ``finding``, which is None as long as the text tells all. ``calls_functions`` says
    that it calls a function of the application. ``short`` counts its runs in the thread that were
    short, one after the other; ``inline``, those on the event loop since the last long one.
    ``steps_are_long`` says that it computes for long between two rows, as an aggregate may.
    """

    __slots__ = (
        "_barred",
        "_penalty",
        "calls_functions",
        "finding",
        "inline",
        "kind",
        "kind_of_text",
        "short",
        "sql",
        "steps_are_long",
    )

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.kind = self.kind_of_text = classify(sql)
        self.finding: Finding | None = None
        self.calls_functions = False
        self.short = 0
        self.inline = 0
        self.steps_are_long = False
        self._barred = 0  # so many more runs in the thread
        self._penalty = 0

    def is_short(self, *, writes: bool) -> bool:
        """Return whether it is known to be short, and calls nothing that may wait."""
        if self._barred or self.calls_functions:
            return False
        return self.short >= (_WRITES if writes else _READS)

    def ran_in_thread(self, *, short: bool, steps_are_long: bool = False) -> None:
        """Learn from a run in a thread."""
        if self._barred:
            self._barred -= 1
        self.short = self.short + 1 if short else 0
        self.steps_are_long = steps_are_long

    def ran_too_long(self) -> None:
        """Learn from a run on the event loop that was too long for it."""
        forgiven = self.inline >= _FORGIVING * self._penalty
        longer = _FIRST_PENALTY if forgiven else 2 * self._penalty
        self._penalty = max(_FIRST_PENALTY, min(longer, _MOST_PENALTY))
        self._barred = self._penalty
        self.short = self.inline = 0

    def found(self, finding: Finding) -> None:
        """Remember what SQLite has said of it."""
        self.finding, self.kind = finding, finding.kind

    def forget_finding(self) -> None:
        """Let its text tell again."""
        self.finding, self.kind = None, self.kind_of_text


@final
class FactsTable:
    """The facts of at most ``size`` texts; the one that was not used for the longest goes first.

    A text of more than 4,096 characters is not kept: each time it is as if it were new. All that is
    executed for the application passes by here, so that a text is known at least as long as
    ``sqlite3`` keeps it compiled: SQLite says whether it calls functions when it compiles it.
    """

    __slots__ = ("_by_text", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._by_text: OrderedDict[str, StatementFacts] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_text)

    def __contains__(self, sql: str) -> bool:
        return sql in self._by_text

    def of(self, sql: str) -> StatementFacts:
        """Return what is known of ``sql``: its kind at least."""
        facts = self._by_text.get(sql)
        if facts is None:
            return self._add(sql)
        self._by_text.move_to_end(sql)
        return facts

    def _add(self, sql: str) -> StatementFacts:
        facts = StatementFacts(sql)
        if len(sql) <= LONGEST_REMEMBERED:
            self._by_text[sql] = facts
            if len(self._by_text) > self._size:
                self._by_text.popitem(last=False)
        return facts

    def forget_findings(self) -> None:
        """A name may mean another table: the temp schema, or what is attached, has changed."""
        for facts in self._by_text.values():
            if facts.finding is not None:
                facts.forget_finding()
