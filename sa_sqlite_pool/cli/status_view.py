"""One frame of ``sa-sqlite-pool status``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..doctor.findings import plural, size_text
from ..publishing.asking import Answer
from ..publishing.overview import Overview

Numbers = Mapping[str, Any]
"""A part of a document, possibly written by another release of the package."""

_MOST_HOLDERS = 12
_MINUTE = 60  # seconds
_OUTSIDE = "outside this package"
_IN_ORDER = ("writes", "waits", "reads")


def frame(overview: Overview, before: Overview | None = None) -> RenderableType:
    """Return the frame that shows ``overview``; rates are measured since ``before``, if given."""
    parts: list[RenderableType] = [_summary(overview)]
    if (processes := _processes(overview, before)).row_count:
        parts += [Text(), processes]
    if silent := list(_silent(overview)):
        parts += [Text(), *silent]
    if (holders := _holders(overview)).row_count:
        parts += [Text(), holders]
    if overview.locks:
        parts += [Text(), _locks(overview)]
    return Group(*parts)


# -- the database and its log ------------------------------------------------------------------


def _summary(overview: Overview) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column()
    name = os.path.basename(overview.database)
    grid.add_row(_text(name), f"{size_text(overview.size)}, {_who_answers(overview.processes)}")
    for number, line in enumerate(_log(overview)):
        grid.add_row("" if number else "log", _text(line))
    turn = _turn(overview) if overview.locks_known else _turn_as_told(overview)
    grid.add_row("turn", _text("; ".join(turn) or "free"))
    return grid


def _who_answers(processes: Sequence[Answer]) -> str:
    if not processes:
        return "no process publishes its statistics"
    silent = sum(answer.statistics is None for answer in processes)
    asked = f"{len(processes)} processes" if len(processes) > 1 else "1 process"
    return f"{asked}, {silent} without an answer" if silent else asked


def _log(overview: Overview) -> Iterator[str]:
    log = overview.log
    if log is None:
        yield "none"
        return
    known = [
        (answer, wal)
        for answer, found in _answered(overview)
        if isinstance(wal := found.get("wal"), Mapping)
    ]
    limits = {_limits(wal) for _, wal in known}
    yield ", ".join(
        [
            size_text(log.size),
            f"{plural(log.frames, 'frame')} ({size_text(log.used)}) in use",
            *sorted(limits),
        ]
    )
    for answer, wal in known:
        if wal.get("held_back_by"):
            yield f"held back by {wal['held_back_by']} ({_name(answer.pid, answer.process)})"
    yield from _oldest_reader(overview)
    reading = [one for one in overview.locks if "read" in one.locks and not one.uses_package]
    for one in reading:
        yield f"read by {_name(one.pid, one.process)} {_OUTSIDE}"


def _oldest_reader(overview: Overview) -> Iterator[str]:
    found = [
        (_number(oldest, "seconds"), oldest, answer)
        for answer, found in _answered(overview)
        if (oldest := _part(found, "oldest_reader"))
    ]
    if found:
        seconds, oldest, answer = max(found, key=lambda one: one[0])
        waits = ", and the log waits for it" if oldest.get("outstayed") else ""
        name = _name(answer.pid, answer.process)
        yield f"read for {_seconds(seconds)} by {oldest.get('who')} of {name}{waits}"


def _limits(wal: Numbers) -> str:
    soft, hard = wal.get("soft_limit"), wal.get("limit")
    words = [
        f"{name} {size_text(found)}" for name, found in (("soft", soft), ("hard", hard)) if found
    ]
    return f"limits: {', '.join(words)}" if words else "no limits"


def _turn(overview: Overview) -> Iterator[str]:
    for one in overview.locks:
        if "turn" in one.locks:
            yield f"taken by {_name(one.pid, one.process)}"
    for one in overview.locks:
        if "line" in one.locks:
            yield f"first in line is {_name(one.pid, one.process)}"


def _turn_as_told(overview: Overview) -> Iterator[str]:
    for answer, found in _answered(overview):
        holder = _part(_part(found, "turn"), "holder")
        if holder and not holder.get("waits_for"):
            yield f"taken by {_name(answer.pid, answer.process)}, as far as that knows"
            return
    yield "not known: this system does not list the locks of processes"


# -- processes ---------------------------------------------------------------------------------


def _processes(overview: Overview, before: Overview | None) -> Table:
    table = _table("pid", "process", "open", "in line", "waits", "longest", "readers")
    table.add_column("SQL/s", justify="right")
    table.add_column("commits/s", justify="right")
    earlier = {answer.path: answer for answer in before.processes} if before else {}
    for answer, found in _answered(overview):
        last = earlier.get(answer.path)
        table.add_row(
            str(answer.pid),
            _text(answer.process or "?"),
            *_row(found),
            *_rates(found, None if last is None else last.statistics),
        )
    return table


def _silent(overview: Overview) -> Iterator[Text]:
    for answer in overview.processes:
        if answer.statistics is None:
            words = f"{_name(answer.pid, answer.process)}: {answer.error or 'has no statistics'}"
            yield Text(_clean(words), style="yellow")


def _row(found: Numbers) -> Iterator[str]:
    turn, readers = _part(found, "turn"), list(_engines(found, "reader"))
    lines = [_part(turn, "waits"), *(_part(engine, "waits") for engine in readers)]
    waiting = _number(turn, "waiting") + sum(_number(engine, "waiting") for engine in readers)
    yield _seconds(found.get("seconds"))
    yield f"{waiting:g}"
    yield f"{sum(_number(line, 'waited') for line in lines):,g}"
    yield _seconds(max(_number(line, "longest_seconds") for line in lines))
    connections = [_part(engine, "connections") for engine in readers]
    yield ", ".join(
        f"{_number(one, 'on_loan'):g}/{one.get('capacity') or '-'}" for one in connections
    )


def _rates(found: Numbers, last: Numbers | None) -> Iterator[str]:
    """Yield statements and commits per second, since ``last`` or else since the opening."""
    last = last or {}
    seconds = _number(found, "seconds") - _number(last, "seconds")
    for count in (_statements, _commits):
        done = count(found) - count(last)
        yield f"{done / seconds:,.1f}" if seconds > 0 and done >= 0 else ""


def _statements(found: Numbers) -> float:
    parts = [_part(engine, "statements") for engine in _engines(found)]
    return sum(_number(part, "inline") + _number(part, "in_thread") for part in parts)


def _commits(found: Numbers) -> float:
    return sum(_number(_part(engine, "transactions"), "commits") for engine in _engines(found))


# -- holders and locks -------------------------------------------------------------------------


def _holders(overview: Overview) -> Table:
    table = _table("pid", "does", "task", "for", "at", "last SQL")
    held = [
        (answer.pid, what, holder)
        for answer, found in _answered(overview)
        for what, holder in _held(found)
    ]
    held.sort(key=lambda one: (_IN_ORDER.index(one[1]), -_number(one[2], "seconds")))
    for pid, what, holder in held[:_MOST_HOLDERS]:
        table.add_row(
            str(pid),
            what,
            _text(_doing(holder)),
            _seconds(holder.get("seconds")),
            _text(holder.get("now_at") or holder.get("asked_at") or ""),
            _text(holder.get("sql") or ""),
        )
    if len(held) > _MOST_HOLDERS:
        table.add_row("", f"and {len(held) - _MOST_HOLDERS} more")
    return table


def _held(found: Numbers) -> Iterator[tuple[str, Numbers]]:
    turn = _part(found, "turn")
    if holder := _part(turn, "holder"):
        yield "waits" if holder.get("waits_for") else "writes", holder
    for engine in _engines(found, "reader"):
        yield from (("reads", one) for one in engine.get("holders") or ())


def _doing(holder: Numbers) -> str:
    words = [str(holder.get("task"))]
    if holder.get("idle_seconds") is not None:
        words.append(f"idle for {_seconds(holder['idle_seconds'])}")
    if holder.get("waits_for"):
        words.append(f"waits for {holder['waits_for']}")
    return ", ".join(words)


def _locks(overview: Overview) -> Table:
    table = _table("pid", "process", "locks now", "")
    for one in overview.locks:
        outside = "" if one.uses_package is not False else _OUTSIDE
        table.add_row(
            str(one.pid), _text(one.process or "?"), ", ".join(one.locks), Text(outside, "yellow")
        )
    return table


# -- parts -------------------------------------------------------------------------------------


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, justify="right" if column in _RIGHT else "left")
    return table


_RIGHT = frozenset({"pid", "open", "waits", "longest", "readers", "for"})


def _answered(overview: Overview) -> Iterator[tuple[Answer, Numbers]]:
    for answer in overview.processes:
        if (found := answer.statistics) is not None:
            yield answer, found


def _engines(found: Numbers, role: str | None = None) -> Iterator[Numbers]:
    for engine in found.get("engines") or ():
        if role is None or engine.get("role") == role:
            yield engine


def _part(found: Numbers, key: str) -> Numbers:
    part = found.get(key)
    return part if isinstance(part, Mapping) else {}


def _number(found: Numbers, key: str) -> float:
    number = found.get(key)
    return float(number) if isinstance(number, (int, float)) else 0.0


def _seconds(found: object) -> str:
    if not isinstance(found, (int, float)):
        return "?"
    if found < _MINUTE:
        return f"{max(found, 0.0):.1f} s"
    minutes, seconds = divmod(int(found), _MINUTE)
    hours, minutes = divmod(minutes, _MINUTE)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def _name(pid: int, process: str | None) -> str:
    return f"process {pid}" if process is None else f"process {pid} ({process})"


def _text(found: object) -> Text:
    return Text(_clean(found))


def _clean(found: object) -> str:
    """Return a text from another process as one line without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(found)).split())
