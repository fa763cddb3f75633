"""The targets of this package, compared to measurements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table

from .output import table


@dataclass(frozen=True, slots=True)
class Asked:
    """One target, described by ``what``, and whether the value ``measured`` meets it."""

    what: str
    limit: float
    measured: float
    kept: bool


def at_most(what: str, limit: float, measured: Sequence[float]) -> Asked:
    """Return the target; the worst value of ``measured`` counts."""
    worst = max(measured)
    return Asked(what, limit, worst, worst <= limit)


def at_least(what: str, limit: float, measured: Sequence[float]) -> Asked:
    """Return the target; the worst value of ``measured`` counts."""
    worst = min(measured)
    return Asked(f"{what} (at least)", limit, worst, worst >= limit)


def asked_table(title: str, all_asked: Iterable[Asked]) -> Table:
    """Return a table with one line for each target."""
    made = table(title, "", "asked", "measured", "kept")
    for one in all_asked:
        made.add_row(
            one.what, f"{one.limit:g}", f"{one.measured:,.2f}", "yes" if one.kept else "NO"
        )
    return made
