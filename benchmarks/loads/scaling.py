"""The same with more and more tasks, to see whether waiting in line has a cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Connection

from ..databases import items
from ..report.results import Point
from ..ways import catalogue
from ..ways.contenders import Contender, Part
from .base import Load, Plan
from .one_row_writes import WRITES, fill, moved
from .point_reads import READS

READS_BY_TASKS, WRITES_BY_TASKS, TURNS = "reads-by-tasks", "writes-by-tasks", "turns"
FEW, MANY = 50, 5_000

_TASKS = (1, 10, 100, 1_000)
_QUICK_TASKS = (1, 10)

_TURNS_TIMES = 4

_READERS: tuple[Contender, ...] = (
    catalogue.stock,
    catalogue.readers,
    catalogue.swap_in,
    catalogue.both_engines,
    catalogue.run_read,
    catalogue.synchronous,
    catalogue.in_threads,
    catalogue.pooled,
)
_WRITERS: tuple[Contender, ...] = (
    catalogue.stock,
    catalogue.writer,
    catalogue.swap_in,
    catalogue.both_engines,
    catalogue.run_write,
    catalogue.synchronous,
    catalogue.in_threads,
    catalogue.pooled,
)
_IN_LINE: tuple[Contender, ...] = (
    catalogue.writer,
    catalogue.swap_in,
    catalogue.both_engines,
    catalogue.run_write,
)


def reads_by_tasks(plan: Plan) -> list[Load]:
    return list(_by_tasks(READS_BY_TASKS, READS, items.fill, _READERS, None, _tasks(plan)))


def writes_by_tasks(plan: Plan) -> list[Load]:
    return list(_by_tasks(WRITES_BY_TASKS, WRITES, fill, _WRITERS, moved, _tasks(plan)))


def turns(_plan: Plan) -> list[Load]:
    """Return the loads with one turn after the other, in a short line and in a very long one.

    The clock starts once all tasks are in line, and runs until each has had about one more turn.
    """
    loads = _by_tasks(TURNS, WRITES, fill, _IN_LINE, moved, (FEW, MANY))
    return [replace(load, times=_TURNS_TIMES, in_line=True) for load in loads]


def _tasks(plan: Plan) -> tuple[int, ...]:
    return _QUICK_TASKS if plan.quick else _TASKS


def _by_tasks(
    name: str,
    part: Part,
    fill_: Callable[[Connection], None],
    contenders: tuple[Contender, ...],
    effects: Callable[[Path], int] | None,
    all_tasks: Iterable[int],
) -> Iterable[Load]:
    for tasks in all_tasks:
        yield Load(
            f"{name} {tasks}",
            (replace(part, tasks=tasks),),
            fill_,
            contenders,
            effects,
            point=Point(name, "tasks", tasks),
        )
