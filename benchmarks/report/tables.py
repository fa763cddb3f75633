"""The output of the command."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from rich.console import Console
from rich.table import Table

from ..measuring.cores import named
from ..measuring.environment import Environment
from ..ways.contenders import SYNCHRONOUS
from ..ways.settings import Settings
from .asked import asked_table
from .output import table
from .results import Books, LoadResult, Report, Run, Spread, Summary

_NOTHING = "-"


def print_report(console: Console, report: Report) -> None:
    """Print a table for each load, its errors and settings, and finally what all loads share."""
    for load in report.loads:
        console.print(_table(load))
        print_problems(console, load.summaries, _unexpected(load))
        console.print()
    for settings, contenders in settings_by_contender(report.loads).items():
        line = f"{' / '.join(contenders)}: {settings}"
        console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)
    if report.asked:
        console.print(asked_table("asked of this package", report.asked))
    print_environment(console, report.environment, report.rounds)


def _unexpected(load: LoadResult) -> list[Run]:
    """Return the runs whose books must balance; for others, the table has a column."""
    may_lose = {summary.contender for summary in load.summaries if summary.may_lose}
    return [run for run in load.runs if run.contender not in may_lose]


def print_environment(console: Console, environment: Environment, rounds: int) -> None:
    """Print the environment, without which figures have no meaning."""
    line = environment_line(environment, rounds)
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(load: LoadResult) -> Table:
    title = (
        f"{load.load}: {load.title}; {pace(load)}, {load.seconds:g} s a round; "
        f"{journal(load.summaries[0])}; {named(load.cores)}"
    )
    made = table(
        title,
        "contender",
        f"{load.unit} (min-max)",
        f"x {load.baseline}",
        f"x {SYNCHRONOUS}",
        "process µs",
        f"process x {SYNCHRONOUS}",
        "cores used",
        "p50 ms",
        "p99 ms (min-max)",
        f"p99 x {load.baseline}",
        "max ms",
        "loop lag p99 ms",
        "errors",
        "lost",
    )
    for summary in load.summaries:
        made.add_row(*cells(load, summary))
    return made


def pace(load: LoadResult) -> str:
    """Return the number of tasks, or the rate of requests in an open loop."""
    return f"{load.tasks:,} tasks" if load.a_second is None else f"{load.a_second:,.3g} a second"


def journal(summary: Summary) -> str:
    """Return the two PRAGMAs on which durability and waiting depend."""
    mode, synchronous = _journal(summary)
    return f"{mode}, synchronous={synchronous}"


def label(load: LoadResult, summary: Summary) -> str:
    """Return its name, followed by these PRAGMAs if they differ from those of the others."""
    own = _journal(summary)
    same = own == _journal(load.summaries[0])
    return summary.contender if same else f"{summary.contender} ({', '.join(own)})"


def _journal(summary: Summary) -> tuple[str, str]:
    pragmas = summary.settings[0].pragmas
    return pragmas["journal_mode"].upper(), pragmas["synchronous"]


def cells(load: LoadResult, summary: Summary) -> Iterator[str]:
    """Yield the cells of one line."""
    yield label(load, summary)
    yield with_spread(summary.throughput, decimals=0)
    yield show_ratio(summary.throughput_ratio)
    yield show_ratio(summary.synchronous_ratio)
    yield median(summary.process_us, decimals=0)
    yield show_ratio(summary.process_ratio)
    yield median(summary.cores_used, decimals=2)
    yield median(summary.p50_ms, decimals=2)
    yield with_spread(summary.p99_ms, decimals=1)
    yield show_ratio(summary.p99_ratio)
    yield worst(summary.max_ms, decimals=1)
    yield median(summary.loop_lag_p99_ms, decimals=2)
    yield f"{sum(summary.errors.values()):,}"
    yield worst(summary.lost, decimals=0)


def with_spread(spread: Spread, *, decimals: int) -> str:
    """Return the median, minimum and maximum as text."""
    middle, least, most = (
        f"{value:,.{decimals}f}" for value in (spread.median, spread.least, spread.most)
    )
    return f"{middle} ({least}-{most})"


def show_ratio(ratio: float | None) -> str:
    """Return two decimals; a dash if there was nothing to compare with."""
    return _NOTHING if ratio is None else f"{ratio:.2f}"


def median(spread: Spread | None, *, decimals: int) -> str:
    """Return the median as text; a dash if nothing was measured."""
    return _NOTHING if spread is None else f"{spread.median:,.{decimals}f}"


def worst(spread: Spread | None, *, decimals: int) -> str:
    """Return the worst value as text; a dash if nothing was measured."""
    return _NOTHING if spread is None else f"{spread.most:,.{decimals}f}"


class _WithErrors(Protocol):
    @property
    def contender(self) -> str: ...
    @property
    def errors(self) -> Mapping[str, int]: ...


class _WithBooks(Protocol):
    @property
    def contender(self) -> str: ...
    @property
    def round(self) -> int: ...
    @property
    def books(self) -> Books | None: ...


def print_problems(
    console: Console, summaries: Iterable[_WithErrors], runs: Iterable[_WithBooks] = ()
) -> None:
    """Print the problems that must not be overlooked."""
    errors = (line for summary in summaries for line in _error_lines(summary))
    books = (line for run in runs for line in _book_lines(run))
    for line in (*errors, *books):
        console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)


def _error_lines(summary: _WithErrors) -> Iterator[str]:
    """Yield one line for each reason."""
    for reason, count in summary.errors.items():
        yield f"{summary.contender}: {count:,} times {reason}"


def _book_lines(run: _WithBooks) -> Iterator[str]:
    """Yield a line if the books of a run do not balance."""
    books = run.books
    if books is not None and not books.balance:
        yield (
            f"{run.contender}, round {run.round + 1}: the books do NOT balance: "
            f"{books.acknowledged:,} acknowledged, {books.found:,} in the file"
        )


def settings_by_contender(loads: Iterable[LoadResult]) -> dict[str, dict[str, None]]:
    """Return each line of settings once, with the names of the contenders that ran with it."""
    names: dict[str, dict[str, None]] = {}
    for load in loads:
        for summary in load.summaries:
            for settings in summary.settings:
                names.setdefault(settings_line(settings), {})[summary.contender] = None
    return names


def print_settings(console: Console, summaries: Iterable[Summary]) -> None:
    """Print the settings with which each contender ran."""
    for summary in summaries:
        for settings in summary.settings:
            line = f"{summary.contender}: {settings_line(settings)}"
            console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)


def settings_line(settings: Settings) -> str:
    pragmas = ", ".join(f"{name}={value}" for name, value in settings.pragmas.items())
    size = f"{settings.pool_size}+{settings.max_overflow}"
    return f"{settings.pool} {size}; {pragmas}; SQLite {settings.sqlite}"


def environment_line(environment: Environment, rounds: int) -> str:
    """Return two lines: the versions, and the machine."""
    load = environment.load_average
    busy = "" if load is None else f" (load average {load:.1f} at the start)"
    if environment.beside:
        busy += f" beside {environment.beside} busy processes"
    return (
        f"SQLite {environment.sqlite}, {environment.python}, SQLAlchemy {environment.sqlalchemy}, "
        f"aiosqlite {environment.aiosqlite}, aiosqlitepool {environment.aiosqlitepool}, "
        f"apsw {environment.apsw}, sa-sqlite-pool {environment.sa_sqlite_pool}, "
        f"event loop of {environment.event_loop}\n"
        f"{environment.system}, {environment.cpus} CPUs{busy}, {environment.file_system}; "
        f"rounds: {rounds}, whose medians are shown; max is the worst of all"
    )
