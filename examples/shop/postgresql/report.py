"""What the demo prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from ..report import FIGURES, Figure, figures_table, print_books, print_circumstances
from ..runs import Run


def print_report(console: Console, runs: Sequence[Run], lag_ms: int) -> None:
    """The table, what it was measured on, who did not find an order, and the books."""
    console.print(figures_table(runs, _ROWS))
    print_circumstances(console, runs)
    console.print(f"the replica shows a commit {lag_ms} ms later", highlight=False)
    for run in runs:
        console.print(_found(run), style=_style(run), highlight=False)
    print_books(console, runs)


def _of_the_replica(run: Run) -> str:
    return f"{run.reads.share_of_replicas:.0%}" if run.contender.settings.replicas else "-"


_ROWS: tuple[tuple[str, Figure], ...] = (
    *FIGURES,
    ("reads of the replica", _of_the_replica),
    ("looks at one's new order", lambda run: f"{run.load.own_orders.looks:,}"),
    ("  without finding it", lambda run: f"{run.load.own_orders.not_found:,}"),
)


def _found(run: Run) -> str:
    orders = run.load.own_orders
    return (
        f"{orders.not_found:,} customers who did not find their order, of {orders.looks:,}: "
        f"{run.name}"
    )


def _style(run: Run) -> str:
    if not run.load.own_orders.not_found:
        return "green"
    return "red" if run.contender.must_find else "yellow"
