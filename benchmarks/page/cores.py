"""The same loads on one core and on all, side by side, and why they differ."""

from __future__ import annotations

from collections.abc import Iterator

from ..measuring.cores import Cores
from ..report.results import LoadResult, Report, Summary
from ..report.tables import median, show_ratio
from ..ways.catalogue import ENGINES, IN_THREADS
from . import markdown
from .answers import paragraph
from .finding import load, pinned, summary

_LOADS = ("point-reads", "orm-get", "one-row-writes", "session-writes")
_ONE: Cores = 1
_ON = ("all cores", "one core")

_WHY = (
    "**Why do one core and two differ?** Threads of Python run one at a time, under the "
    "interpreter lock, which `sqlite3` releases and takes again at each step of a statement. On "
    "two cores the thread that comes back from SQLite, or has just been woken, and the one that "
    "has the lock fight for it at every hop to a thread and back, with a wake-up by the kernel "
    "each time; on one core the other thread does not run meanwhile, and there is no fight."
)


def one_core_and_all(report: Report) -> str:
    """Return the reason, the figures that show it best, and a table for each load."""
    tables = (_table(load(report, name), pinned(report, name, _ONE)) for name in _LOADS)
    return "\n\n".join((paragraph(f"{_WHY} {_shown(report)}"), *tables))


def _shown(report: Report) -> str:
    free, one = load(report, "point-reads"), pinned(report, "point-reads", _ONE)
    if one is None:
        return "This report has no figures of one core."
    threads, engine = (
        " and ".join(f"{median(summary(of, name).process_us, decimals=0)} µs" for of in (free, one))
        for name in (IN_THREADS, ENGINES)
    )
    return (
        f"A point read by `{IN_THREADS}` takes the process {threads} of processor time, on all "
        f"cores and on one; by `db.reader_engine`, which reads it on the event loop, {engine}."
    )


def _table(free: LoadResult, one: LoadResult | None) -> str:
    found = [free, *([one] if one else [])]
    title = f"*{free.load}*: {free.title}; {free.tasks:,} tasks."
    figures = (free.unit, "process µs", "process x synchronous")
    headings = ("", *(f"{of}: {name}" for of in _ON[: len(found)] for name in figures))
    rows = (_row(found, of.contender) for of in free.summaries)
    return f"{title}\n\n{markdown.table(headings, rows)}"


def _row(found: list[LoadResult], contender: str) -> Iterator[str]:
    yield contender
    for one in (summary(of, contender) for of in found):
        yield from _figures(one)


def _figures(one: Summary) -> Iterator[str]:
    yield f"{one.throughput.median:,.0f}"
    yield median(one.process_us, decimals=0)
    yield show_ratio(one.process_ratio)
