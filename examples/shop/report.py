"""What the demo prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import typer
from rich.console import Console
from rich.table import Table

from .runs import Run
from .stores import EngineKind

REASONS_SHOWN = 5

Figure = Callable[[Run], str]

FIGURES: tuple[tuple[str, Figure], ...] = (
    ("requests/s", lambda run: f"{run.load.requests_per_second:,.0f}"),
    ("  reads/s", lambda run: f"{run.load.reads.per_second:,.0f}"),
    ("  writes/s", lambda run: f"{run.load.writes.per_second:,.0f}"),
    ("read p50, ms", lambda run: f"{run.load.reads.p50_ms:,.1f}"),
    ("read p99, ms", lambda run: f"{run.load.reads.p99_ms:,.1f}"),
    ("read max, ms", lambda run: f"{run.load.reads.max_ms:,.1f}"),
    ("write p50, ms", lambda run: f"{run.load.writes.p50_ms:,.1f}"),
    ("write p99, ms", lambda run: f"{run.load.writes.p99_ms:,.1f}"),
    ("write max, ms", lambda run: f"{run.load.writes.max_ms:,.1f}"),
    ("out of stock (409)", lambda run: f"{run.load.out_of_stock:,}"),
    ("failed requests", lambda run: f"{run.load.failed:,}"),
    ("load client, of one core", lambda run: f"{run.load.client_cpu_share:.0%}"),
)


def print_report(console: Console, runs: Sequence[Run]) -> None:
    """The table, what it was measured on, the comparison and the books."""
    console.print(figures_table(runs, FIGURES))
    print_circumstances(console, runs)
    by_name = {run.name: run for run in runs}
    if len(by_name) == len(EngineKind):
        stock, pool = (by_name[kind.value] for kind in EngineKind)
        console.print(*_ratios(stock, pool), sep="\n", highlight=False)
    print_books(console, runs)


def figures_table(runs: Sequence[Run], figures: Sequence[tuple[str, Figure]]) -> Table:
    """A column for each run."""
    table = Table()
    table.add_column()
    for run in runs:
        table.add_column(run.name, justify="right")
    for title, figure in figures:
        table.add_row(title, *map(figure, runs))
    return table


def print_circumstances(console: Console, runs: Sequence[Run]) -> None:
    """What it was measured on, and what failed."""
    for line in dict.fromkeys(map(_measured_on, runs)):
        console.print(line, highlight=False)
    for run in runs:
        for error in _errors(run):
            console.print(error, style="yellow", markup=False)


def print_books(console: Console, runs: Sequence[Run]) -> None:
    """Whether they balance."""
    for run in runs:
        console.print(_balance(run), style="green" if run.books.balance else "red")


def fail_on_problems(console: Console, runs: Sequence[Run]) -> None:
    """Name the problems, and exit with 1 if there are any."""
    problems = [problem for run in runs for problem in run.problems]
    for problem in problems:
        console.print(problem, style="red", markup=False)
    if problems:
        raise typer.Exit(1)


def _measured_on(run: Run) -> str:
    about = run.about
    return f"{about.database}\nPython {about.python}, SQLAlchemy {about.sqlalchemy}"


def _errors(run: Run) -> list[str]:
    """The most frequent reasons; a server that does not stop is one, too."""
    counted = Counter(run.load.errors).most_common(REASONS_SHOWN)
    errors = [f"{reason}: {count:,} times" for reason, count in counted]
    errors += [] if run.stopped else ["the server had to be killed"]
    return [f"{run.name}: {error}" for error in errors]


def _ratios(stock: Run, pool: Run) -> list[str]:
    """The package's figures as multiples of stock's; for waiting times less is better."""
    pairs = {
        "requests/s": (pool.load.requests_per_second, stock.load.requests_per_second),
        "reads/s": (pool.load.reads.per_second, stock.load.reads.per_second),
        "writes/s": (pool.load.writes.per_second, stock.load.writes.per_second),
        "read p99": (pool.load.reads.p99_ms, stock.load.reads.p99_ms),
        "write p99": (pool.load.writes.p99_ms, stock.load.writes.p99_ms),
        "write max": (pool.load.writes.max_ms, stock.load.writes.max_ms),
    }
    return [
        f"sa_sqlite_pool's {what} is {ours / theirs:.2f} times stock's"
        for what, (ours, theirs) in pairs.items()
        if theirs
    ]


def _balance(run: Run) -> str:
    books = run.books
    if not books.balance:
        return f"The books of {run.name} do NOT balance: {'; '.join(books.problems)}"
    return (
        f"The books balance: {run.name}\n"
        f"  {books.products:,} products: {books.received:,} pieces received - "
        f"{books.sold:,} sold = {books.stock:,} in stock\n"
        f"  {books.acknowledged:,} new orders acknowledged, {books.new_orders:,} stored"
    )
