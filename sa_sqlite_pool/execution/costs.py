"""What the statements of one connection have cost, by their SQL text."""

from __future__ import annotations

from collections import OrderedDict
from typing import final

from ..sqlite.statements import LONGEST_REMEMBERED

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
class _Cost:
    """Of one text: ``short`` runs in the thread, and ``inline`` ones since the last long one."""

    __slots__ = ("barred", "inline", "penalty", "short", "steps_are_long")

    def __init__(self) -> None:
        self.short = 0
        self.inline = 0
        self.barred = 0  # so many more runs in the thread
        self.penalty = 0
        self.steps_are_long = False


@final
class Costs:
    """A table of at most ``size`` texts of bounded length; a new one replaces the oldest.

    A text that is not in it is unknown, and so not short: its first runs go to the thread.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._by_text: OrderedDict[str, _Cost] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_text)

    def short(self, text: str, *, writes: bool) -> bool:
        """Whether it is known to be short."""
        cost = self._by_text.get(text)
        if cost is None or cost.barred:
            return False
        return cost.short >= (_WRITES if writes else _READS)

    def steps_are_long(self, text: str) -> bool:
        """Whether they were, the last time it ran in the thread."""
        cost = self._by_text.get(text)
        return cost is not None and cost.steps_are_long

    def ran_in_thread(self, text: str, *, short: bool, steps_are_long: bool = False) -> None:
        cost = self._by_text.get(text)
        if cost is None:
            if len(text) > LONGEST_REMEMBERED:
                return
            cost = self._by_text[text] = _Cost()
            if len(self._by_text) > self._size:
                self._by_text.popitem(last=False)
        if cost.barred:
            cost.barred -= 1
        cost.short = cost.short + 1 if short else 0
        cost.steps_are_long = steps_are_long

    def ran_inline(self, text: str, *, short: bool) -> None:
        cost = self._by_text.get(text)
        if cost is None:
            return
        if short:
            cost.inline += 1
            return
        forgiven = cost.inline >= _FORGIVING * cost.penalty
        longer = _FIRST_PENALTY if forgiven else 2 * cost.penalty
        cost.penalty = max(_FIRST_PENALTY, min(longer, _MOST_PENALTY))
        cost.barred = cost.penalty
        cost.short = cost.inline = 0

    def forget(self) -> None:
        self._by_text.clear()
