"""What the command prints."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from .environment import Environment
from .results import LoadResult, Report, Spread, Summary
from .settings import Settings

_NOTHING = "-"


def print_report(console: Console, report: Report) -> None:
    """A table a load, its errors and settings, and at the end what all loads share."""
    for load in report.loads:
        console.print(_table(load))
        for line in _errors(load):
            console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
        for line in _settings(load):
            console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)
        console.print()
    environment = _environment(report.environment, report.rounds)
    console.print(environment, markup=False, highlight=False, soft_wrap=True)


def _table(load: LoadResult) -> Table:
    title = f"{load.load}: {load.title}; {load.operations:,} a round, {load.tasks} tasks"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("contender", no_wrap=True)
    for heading in (
        f"{load.unit} (min-max)",
        f"x {load.baseline}",
        "p50 ms",
        "p99 ms (min-max)",
        f"p99 x {load.baseline}",
        "max ms",
        "loop lag p99 ms",
        "errors",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for summary in load.summaries:
        table.add_row(*_cells(summary))
    return table


def _cells(summary: Summary) -> Iterator[str]:
    lag = summary.loop_lag_p99_ms
    yield summary.contender
    yield _with_spread(summary.throughput, decimals=0)
    yield _ratio(summary.throughput_ratio)
    yield f"{summary.p50_ms.median:,.2f}"
    yield _with_spread(summary.p99_ms, decimals=1)
    yield _ratio(summary.p99_ratio)
    yield f"{summary.max_ms.most:,.1f}"
    yield _NOTHING if lag is None else f"{lag.median:,.2f}"
    yield f"{sum(summary.errors.values()):,}"


def _with_spread(spread: Spread, *, decimals: int) -> str:
    median, least, most = (
        f"{value:,.{decimals}f}" for value in (spread.median, spread.least, spread.most)
    )
    return f"{median} ({least}-{most})"


def _ratio(ratio: float | None) -> str:
    return _NOTHING if ratio is None else f"{ratio:.2f}"


def _errors(load: LoadResult) -> Iterator[str]:
    for summary in load.summaries:
        for reason, count in summary.errors.items():
            yield f"{summary.contender}: {count:,} times {reason}"
    for run in load.runs:
        if run.books is not None and not run.books.balance:
            yield (
                f"{run.contender}, round {run.round + 1}: the books do NOT balance: "
                f"{run.books.acknowledged:,} acknowledged, {run.books.found:,} in the file"
            )


def _settings(load: LoadResult) -> Iterator[str]:
    for summary in load.summaries:
        for settings in summary.settings:
            yield f"{summary.contender}: {_settings_line(settings)}"


def _settings_line(settings: Settings) -> str:
    pragmas = ", ".join(f"{name}={value}" for name, value in settings.pragmas.items())
    return f"{settings.pool} {settings.pool_size}+{settings.max_overflow}; {pragmas}"


def _environment(environment: Environment, rounds: int) -> str:
    load = environment.load_average
    busy = "" if load is None else f" (load average {load:.1f} at the start)"
    return (
        f"SQLite {environment.sqlite}, {environment.python}, SQLAlchemy {environment.sqlalchemy}, "
        f"aiosqlite {environment.aiosqlite}, sa-sqlite-pool {environment.sa_sqlite_pool}\n"
        f"{environment.system}, {environment.cpus} CPUs{busy}, {environment.file_system}; "
        f"rounds: {rounds}, whose medians are shown; max is the worst of all"
    )
