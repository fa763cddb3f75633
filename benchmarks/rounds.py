"""Who runs when, and on which file.

What else goes on in a machine changes from minute to minute. So the contenders take turns: each
runs once in every round, and who is first moves on from round to round, so that nobody always
has the best place.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from . import files
from .contenders import Contender, Work
from .loads.base import Load
from .results import LoadResult, Run, Summary

T = TypeVar("T")


def run_load(
    load: Load, *, operations: int, rounds: int, directory: Path, on_run: Callable[[str], None]
) -> LoadResult:
    """All rounds of ``load``, on files in ``directory``; ``on_run`` hears who runs next."""
    template = directory / f"{load.name}.db"
    files.create(template, load.fill)
    runs = []
    for round_ in range(rounds):
        work = Work(_keys(load, operations, round_), load.tasks)
        for place, contender in enumerate(rotated(load.contenders, round_)):
            on_run(contender.name)
            runs.append(_run(load, contender, work, template, round_, place))
    return _result(load, operations, runs)


def rotated(contenders: Sequence[T], by: int) -> list[T]:
    """``contenders``, beginning with another one in each round."""
    first = by % len(contenders)
    return [*contenders[first:], *contenders[:first]]


def _keys(load: Load, operations: int, seed: int) -> list[int]:
    """Random rows, the same for all contenders of a round."""
    chooser = random.Random(seed)
    return [chooser.randint(1, load.rows) for _ in range(operations)]


def _run(
    load: Load, contender: Contender, work: Work, template: Path, round_: int, place: int
) -> Run:
    with TemporaryDirectory(dir=template.parent) as directory:
        database = files.copy(template, Path(directory))
        measurement = contender.run(database, work)
        found = None if load.effects is None else load.effects(database)
    return Run.of(contender.name, round_, place, measurement, found)


def _result(load: Load, operations: int, runs: list[Run]) -> LoadResult:
    names = [contender.name for contender in load.contenders]
    by_name = {name: [run for run in runs if run.contender == name] for name in names}
    baseline = by_name[names[0]]
    return LoadResult(
        load=load.name,
        title=load.title,
        unit=load.unit,
        tasks=load.tasks,
        operations=operations,
        baseline=names[0],
        summaries=[Summary.of(by_name[name], baseline) for name in names],
        runs=runs,
    )
