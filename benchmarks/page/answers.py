"""The conclusions from the figures about reuse, threads and the journal."""

from __future__ import annotations

from textwrap import fill

from ..loads.reuse import OPEN_OR_REUSE
from ..loads.scaling import READS_BY_TASKS
from ..report.results import LoadResult, Report, Summary
from ..report.tables import journal
from ..ways.catalogue import AS_IT_COMES, NULL_POOL, POOLED, READER, SWAP_IN
from ..ways.contenders import STOCK, SYNCHRONOUS
from .finding import load, series, summary

_SHARE = 0.01
"""The share of the time from which something counts as a cost."""


def answers(report: Report) -> str:
    """Return one paragraph for each conclusion."""
    return "\n\n".join((_reuse(report), _threads(report), _journal(report)))


def _reuse(report: Report) -> str:
    question = paragraph(
        "**From which load does reuse matter?** A stock engine that opens a connection for each "
        "checkout (`NullPool`) takes longer for the same read than one that keeps its connections:"
    )
    return "\n".join(
        (question, "", *(_cost_of_opening(one) for one in series(report, OPEN_OR_REUSE)))
    )


def _cost_of_opening(found: LoadResult) -> str:
    assert found.point is not None
    cost_ms = summary(found, NULL_POOL).p50_ms.median - summary(found, STOCK).p50_ms.median
    if cost_ms <= 0:
        return f"- {found.point.x:,} schema objects: nothing that could be measured"
    rate = _SHARE * 1000 / cost_ms
    return (
        f"- {found.point.x:,} schema objects: {cost_ms:.2f} ms, which is 1 % of the time at "
        f"{rate:,.1f} checkouts a second"
    )


def _threads(report: Report) -> str:
    """Compare a single task, which waits for no other: only the way to SQLite and back is left."""
    alone, many = load(report, f"{READS_BY_TASKS} 1"), load(report, "point-reads")
    bare_us = summary(many, SYNCHRONOUS).p50_ms.median * 1000
    parts = (
        f"{name} {summary(alone, name).p50_ms.median * 1000:,.0f} µs"
        for name in (STOCK, READER, SWAP_IN, POOLED)
    )
    return paragraph(
        f"**What do threads cost?** A point read takes synchronous SQLAlchemy {bare_us:,.0f} µs. "
        f"The same read by one task, with nobody to wait for: {', '.join(parts)} (medians). The "
        "difference is the event loop, the hops to a thread and back, and the pool."
    )


def _journal(report: Report) -> str:
    """Compare the contender that does not set the journal mode, and so does not use WAL."""
    full = load(report, "one-row-writes-full")
    as_it_comes, stock = summary(full, AS_IT_COMES), summary(full, STOCK)
    return paragraph(
        "**Which journal mode was it?** WAL, except where a name says otherwise. SQLAlchemy leaves "
        f"it at SQLite's own: {journal(as_it_comes)}. As it comes, a stock engine does "
        f"{_writes(as_it_comes)}; with {journal(stock)} and 30 s to wait {_writes(stock)}."
    )


def _writes(one: Summary) -> str:
    errors = sum(one.errors.values())
    return (
        f"{one.throughput.median:,.0f} one-row transactions a second, p99 "
        f"{one.p99_ms.median:,.0f} ms, with {errors:,} errors"
    )


def paragraph(text: str) -> str:
    """Return the text wrapped into lines, so a diff shows changes."""
    return fill(text, width=100, break_on_hyphens=False)
