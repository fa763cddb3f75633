"""The open loop, with all its targets in one table for each number of cores."""

from __future__ import annotations

from collections.abc import Iterator

from ..loads.open_loop import OPEN_LOOP
from ..measuring.cores import named
from ..report.results import LoadResult, Report
from ..report.tables import journal, label, median
from . import markdown
from .finding import summary, with_all_cores

_HEADINGS = (
    "",
    *("read p50 ms", "read p99 ms", "write p50 ms", "write p99 ms", "scan p50 ms"),
    *("loop lag p99 ms", "cores used", "process µs", "errors"),
)


def open_loop(report: Report) -> str:
    """Return a table for all cores, and one for each other number of cores."""
    parts = (
        with_all_cores(report, f"{OPEN_LOOP}: {part}") for part in ("reads", "writes", "scans")
    )
    return "\n\n".join(_table(*of_all) for of_all in zip(*parts, strict=True))


def _table(reads: LoadResult, writes: LoadResult, scans: LoadResult) -> str:
    title = (
        f"*{OPEN_LOOP}, {named(reads.cores)}*: {reads.title}; {journal(reads.summaries[0])}. "
        f"Runs of {reads.seconds:g} s."
    )
    return f"{title}\n\n{markdown.table(_HEADINGS, _rows(reads, writes, scans))}"


def _rows(reads: LoadResult, writes: LoadResult, scans: LoadResult) -> Iterator[Iterator[str]]:
    return (_row(reads, writes, scans, one.contender) for one in reads.summaries)


def _row(reads: LoadResult, writes: LoadResult, scans: LoadResult, contender: str) -> Iterator[str]:
    read, write, scan = (summary(of, contender) for of in (reads, writes, scans))
    yield label(reads, read)
    for one in (read, write):
        yield median(one.p50_ms, decimals=2)
        yield median(one.p99_ms, decimals=1)
    yield median(scan.p50_ms, decimals=0)
    yield median(read.loop_lag_p99_ms, decimals=1)
    yield median(read.cores_used, decimals=2)
    yield median(read.process_us, decimals=0)
    yield f"{sum(count for one in (read, write, scan) for count in one.errors.values()):,}"
