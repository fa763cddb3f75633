"""Tables for the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..measuring.cores import named
from ..report.asked import Asked
from ..report.results import LoadResult, Report, Summary
from ..report.tables import (
    environment_line,
    journal,
    label,
    median,
    pace,
    settings_by_contender,
    show_ratio,
    worst,
)

Cell = Callable[[Summary], str]


def load_table(load: LoadResult) -> str:
    """Return a table of all contenders of a load, below a line that describes the load."""
    title = (
        f"*{load.load}, {named(load.cores)}*: {load.title}; {pace(load)}; "
        f"{journal(load.summaries[0])}. Runs of {load.seconds:g} s."
    )
    headings = (
        "",
        load.unit,
        "min-max",
        f"x {load.baseline}",
        "x synchronous",
        "process µs",
        "process x synchronous",
        "cores used",
        "p50 ms",
        "p99 ms",
        "loop lag p99 ms",
        "errors",
        *(["lost"] if _with_books(load) else []),
    )
    return f"{title}\n\n{table(headings, (_row(load, one) for one in load.summaries))}"


def _with_books(load: LoadResult) -> bool:
    return any(one.lost is not None for one in load.summaries)


def _row(load: LoadResult, one: Summary) -> Iterator[str]:
    spread = one.throughput
    decimals = 0 if spread.median >= 10 else 1
    yield label(load, one)
    yield f"{spread.median:,.{decimals}f}"
    yield f"{spread.least:,.{decimals}f}-{spread.most:,.{decimals}f}"
    yield show_ratio(one.throughput_ratio)
    yield show_ratio(one.synchronous_ratio)
    yield median(one.process_us, decimals=0)
    yield show_ratio(one.process_ratio)
    yield median(one.cores_used, decimals=2)
    yield median(one.p50_ms, decimals=2)
    yield median(one.p99_ms, decimals=1)
    yield median(one.loop_lag_p99_ms, decimals=1)
    yield f"{sum(one.errors.values()):,}"
    if _with_books(load):
        yield worst(one.lost, decimals=0)


def series_table(series: Sequence[LoadResult], what: str, cell: Cell) -> str:
    """Return a table with a line for each contender and a column for each load of the series."""
    first = series[0]
    of = first.point.of if first.point else ""
    title = (
        f"{first.title.rpartition(',')[0] or first.title}; {what}; "
        f"{journal(first.summaries[0])}; {named(first.cores)}."
    )
    headings = ("", *(f"{load.point.x:,} {of}" for load in series if load.point))
    rows = (
        (name, *(cell(found) for load in series if (found := load.summary(name))))
        for name in (one.contender for one in first.summaries)
    )
    return f"{title}\n\n{table(headings, rows)}"


def asked_table(asked: Sequence[Asked]) -> str:
    """Return a table of the targets and whether they are met; a dash if there are none."""
    rows = (
        (one.what, f"{one.limit:g}", f"{one.measured:.2f}", "yes" if one.kept else "**no**")
        for one in asked
    )
    return table(("", "asked", "measured", "kept"), rows)


def environment(report: Report) -> str:
    """Return the versions and the machine."""
    return environment_line(report.environment, report.rounds).replace("\n", "\n\n")


def settings(report: Report) -> str:
    """Return the settings, as reported by the connections themselves."""
    rows = (
        (", ".join(f"“{name}”" for name in names), f"`{line}`")
        for line, names in settings_by_contender(report.loads).items()
    )
    return table(("", "pool and PRAGMAs in force"), rows, figures=False)


def table(
    headings: Sequence[str], rows: Iterator[Sequence[str] | Iterator[str]], *, figures: bool = True
) -> str:
    """Return a Markdown table; ``figures`` are right-aligned."""
    ruler = ["---", *(["---:" if figures else "---"] * (len(headings) - 1))]
    lines = [headings, ruler, *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
