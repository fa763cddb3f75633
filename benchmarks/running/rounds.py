"""The order in which contenders run, and the files on which they run.

Other load on a machine changes from minute to minute. So the contenders take turns: each runs once
in every round, and each round starts with another contender, so that none always has the best
place.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from ..databases import files
from ..loads.base import Load
from ..measuring.cores import Cores, limited
from ..measuring.event_loops import RunLoop
from ..measuring.neighbours import beside
from ..report.results import LoadResult, Run, Summary
from ..ways.contenders import SYNCHRONOUS, Contender, Part, Work
from ..ways.engines import PRAGMAS

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Effort:
    """The amount of work: ``rounds`` runs of each contender, ``seconds`` each, and the conditions.

    :param cores: each round has a run with each of these numbers of cores
    :param run: runs the event loop
    :param beside: the number of busy processes on the same cores
    """

    rounds: int
    seconds: float
    warm_up_per_task: int = 3
    cores: tuple[Cores, ...] = (None,)
    run: RunLoop = asyncio.run
    beside: int = 0


def run_loads(
    loads: Sequence[Load], effort: Effort, directory: Path, on_run: Callable[[str], None]
) -> list[LoadResult]:
    """Run all rounds of ``loads``, on files in ``directory``; ``on_run`` is called before each run.

    Loads of a series are compared with each other and therefore take turns, too, as do numbers of
    cores. There is one result for each part of each load and each number of cores.
    """
    runs: dict[tuple[str, str, Cores], list[Run]] = defaultdict(list)
    with TemporaryDirectory(dir=directory) as place:
        templates = [_template(load, Path(place) / str(at)) for at, load in enumerate(loads)]
        for round_ in range(effort.rounds):
            for load, template in rotated(list(zip(loads, templates, strict=True)), round_):
                for cores in rotated(effort.cores, round_):
                    with limited(cores), beside(effort.beside):
                        for part, run in _round(load, effort, template, round_, on_run):
                            runs[load.name, part, cores].append(run)
    return [
        _result(load, part, effort.seconds * load.times, cores, runs[load.name, part.name, cores])
        for load in loads
        for part in load.parts
        for cores in effort.cores
    ]


def _template(load: Load, place: Path) -> Path:
    place.mkdir()
    template = place / "template.db"
    files.create(template, load.fill)
    return template


def _round(
    load: Load, effort: Effort, template: Path, round_: int, on_run: Callable[[str], None]
) -> Iterator[tuple[str, Run]]:
    work = _work(load, effort, round_)
    for place, contender in enumerate(rotated(load.contenders, round_)):
        on_run(contender.name)
        yield from _run(load, contender, work, template, place)


def rotated(contenders: Sequence[T], by: int) -> list[T]:
    """Return ``contenders``, starting with another one in each round."""
    first = by % len(contenders)
    return [*contenders[first:], *contenders[:first]]


def _work(load: Load, effort: Effort, round_: int) -> Work:
    return Work(
        parts=load.parts,
        seconds=effort.seconds * load.times,
        warm_up_per_task=effort.warm_up_per_task,
        seed=round_,
        pragmas={**PRAGMAS, "synchronous": load.synchronous},
        in_line=load.in_line,
        run=effort.run,
    )


def _run(
    load: Load, contender: Contender, work: Work, template: Path, place: int
) -> Iterator[tuple[str, Run]]:
    with _file(load, contender, template) as database:
        measurements = contender.run(database, work)
        found = None if load.effects is None else load.effects(database)
    for part in load.parts:
        effects = found if part.writes else None
        run = Run.of(contender.name, work.seed, place, measurements[part.name], effects)
        yield part.name, run


@contextmanager
def _file(load: Load, contender: Contender, template: Path) -> Iterator[Path]:
    if load.shared:
        yield template
        return
    with TemporaryDirectory(dir=template.parent) as directory:
        database = files.copy(template, Path(directory))
        if contender.without_wal:
            files.leave_wal(database)
        yield database


def _result(load: Load, part: Part, seconds: float, cores: Cores, runs: list[Run]) -> LoadResult:
    names = [contender.name for contender in load.contenders]
    by_name = {name: [run for run in runs if run.contender == name] for name in names}
    baseline, synchronous = by_name[names[0]], by_name.get(SYNCHRONOUS)
    return LoadResult(
        load=load.name if len(load.parts) == 1 else f"{load.name}: {part.name}",
        title=part.title,
        unit=part.unit,
        tasks=part.tasks,
        seconds=seconds,
        point=load.point,
        baseline=names[0],
        summaries=[
            Summary.of(by_name[name], baseline, synchronous, may_lose=name in load.may_lose)
            for name in names
        ],
        runs=runs,
        cores=cores,
        a_second=None if part.pace is None else part.pace.a_second,
    )
