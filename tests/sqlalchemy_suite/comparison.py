"""The comparison of a run on ``SQLitePool`` with one on the stock pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .differences import Difference
from .outcomes import Outcomes


@dataclass(frozen=True)
class Comparison:
    """Names of tests, sorted."""

    unexpected: dict[str, str]
    """Passed on stock but not on ours, without being a known difference; with their failures."""
    known: list[str]
    """Passed on stock but not on ours, and recorded as a known difference."""
    outdated: list[str]
    """Recorded as a known difference, but passed on both."""
    better: list[str]
    """Failed on stock, but passed on ours."""


def compare(stock: Outcomes, ours: Outcomes, differences: Sequence[Difference]) -> Comparison:
    """Compare two runs of the same tests."""
    unexpected: dict[str, str] = {}
    known: list[str] = []
    for name in sorted(stock.passed - ours.passed):
        if any(difference.covers(name) for difference in differences):
            known.append(name)
        else:
            unexpected[name] = ours.failed.get(name, _left_out(name, ours))
    # A process that did not end is not among stock's tests, but still a failure.
    for name in sorted(ours.failed.keys() - stock.failed.keys() - stock.passed - stock.skipped):
        unexpected[name] = ours.failed[name]
    both = stock.passed & ours.passed
    outdated = [d.test for d in differences if any(d.covers(name) for name in both)]
    return Comparison(unexpected, known, outdated, sorted(stock.failed.keys() & ours.passed))


def _left_out(name: str, ours: Outcomes) -> str:
    return "skipped" if name in ours.skipped else "not collected"
