"""The parts of docs/benchmarks.md that are written from a report, each between two markers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from ..loads.reuse import BY_SIZE, OPEN_OR_REUSE
from ..loads.scaling import READS_BY_TASKS, TURNS, WRITES_BY_TASKS
from ..results import Report, Summary
from . import markdown
from .answers import answers
from .finding import load, series

_BLOCK = re.compile(r"(<!-- from the report: (.+?) -->\n)(?:.*?\n)??(<!-- end -->)", re.DOTALL)


def write(page: str, report: Report) -> str:
    """``page`` with every block written anew."""
    return _BLOCK.sub(lambda found: f"{found[1]}\n{_block(report, found[2])}\n\n{found[3]}", page)


def _block(report: Report, name: str) -> str:
    if name in _GENERAL:
        return _GENERAL[name](report)
    if name in _SERIES:
        what, cell = _SERIES[name]
        return markdown.series_table(series(report, name), what, cell)
    return markdown.load_table(load(report, name))


def _throughput(one: Summary) -> str:
    return f"{one.throughput.median:,.0f} ({one.p99_ms.median:,.1f})"


def _p50(one: Summary) -> str:
    return f"{one.p50_ms.median:,.3f}"


_GENERAL: Mapping[str, Callable[[Report], str]] = {
    "answers": answers,
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
