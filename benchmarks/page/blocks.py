"""The parts of docs/benchmarks.md that are written from a report, each between two markers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from ..loads.open_loop import OPEN_LOOP
from ..loads.reuse import BY_SIZE, OPEN_OR_REUSE
from ..loads.scaling import READS_BY_TASKS, TURNS, WRITES_BY_TASKS
from ..report.results import Report, Summary
from . import markdown
from .answers import answers
from .cores import one_core_and_all
from .finding import series_with_all_cores, with_all_cores
from .open_loop import open_loop

_BLOCK = re.compile(r"(<!-- from the report: (.+?) -->\n)(?:.*?\n)??(<!-- end -->)", re.DOTALL)


def write(page: str, report: Report) -> str:
    """Return ``page`` with all blocks rewritten."""
    return _BLOCK.sub(lambda found: f"{found[1]}\n{_block(report, found[2])}\n\n{found[3]}", page)


def _block(report: Report, name: str) -> str:
    if name in _GENERAL:
        return _GENERAL[name](report)
    if name in _SERIES:
        what, cell = _SERIES[name]
        found = series_with_all_cores(report, name)
        return "\n\n".join(markdown.series_table(one, what, cell) for one in found)
    return "\n\n".join(map(markdown.load_table, with_all_cores(report, name)))


def _throughput(one: Summary) -> str:
    return f"{one.throughput.median:,.0f} ({one.p99_ms.median:,.1f})"


def _p50(one: Summary) -> str:
    return f"{one.p50_ms.median:,.3f}"


_GENERAL: Mapping[str, Callable[[Report], str]] = {
    "answers": answers,
    "cores": one_core_and_all,
    OPEN_LOOP: open_loop,
    "asked": lambda report: markdown.asked_table(report.asked),
    "environment": markdown.environment,
    "settings": markdown.settings,
}

_SERIES: Mapping[str, tuple[str, Callable[[Summary], str]]] = {
    READS_BY_TASKS: ("q/s, and p99 in ms", _throughput),
    WRITES_BY_TASKS: ("tx/s, and p99 in ms", _throughput),
    TURNS: ("tx/s, and p99 in ms", _throughput),
    OPEN_OR_REUSE: ("p50 of a read, ms", _p50),
    BY_SIZE: ("p50 of a read, ms", _p50),
}
