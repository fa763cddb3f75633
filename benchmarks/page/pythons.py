"""The same loads on several Pythons and event loops: a table for each load."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..measuring.cores import named
from ..report.results import LoadResult, Report
from ..report.tables import show_ratio
from . import markdown

_BLOCK = re.compile(r"(<!-- from several Pythons -->\n)(?:.*?\n)??(<!-- end -->)", re.DOTALL)

_NOTHING = "-"


def tables(reports: Sequence[Report]) -> str:
    """Return tables of the first report's loads: one line for each report and number of cores."""
    loads = {load.load: load for load in reports[0].loads}
    return "\n\n".join(_table(reports, load) for load in loads.values())


def write(page: str, made: str) -> str:
    """Return ``page`` with ``made`` between its markers."""
    return _BLOCK.sub(lambda found: f"{found[1]}\n{made}\n\n{found[2]}", page)


def _table(reports: Sequence[Report], first: LoadResult) -> str:
    title = (
        f"*{first.load}*: {first.title}; {first.tasks:,} tasks. {first.unit}, and process time for "
        "one of synchronous's."
    )
    names = [one.contender for one in first.summaries]
    return f"{title}\n\n{markdown.table(('', *names), _rows(reports, first.load, names))}"


def _rows(reports: Sequence[Report], load: str, names: Sequence[str]) -> Iterator[Iterator[str]]:
    for report in reports:
        for found in report.loads:
            if found.load == load:
                yield _row(report, found, names)


def _row(report: Report, found: LoadResult, names: Sequence[str]) -> Iterator[str]:
    environment = report.environment
    yield f"{environment.python}, {environment.event_loop}, {named(found.cores)}"
    yield from (_cell(found, name) for name in names)


def _cell(found: LoadResult, contender: str) -> str:
    one = found.summary(contender)
    if one is None:
        return _NOTHING
    return f"{one.throughput.median:,.0f} ({show_ratio(one.process_ratio)})"
