"""An hour of a server in seconds: requests at random moments, and occasional reports."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..ways import catalogue
from ..ways.contenders import Contender, Pace
from ..ways.open_loop import OpenLoop
from .base import Load, Plan
from .mixed import READS_AND_WRITES, SCANS, fill, scan
from .one_row_writes import moved

OPEN_LOOP = "open-loop"

_TIMES = 10
_TIMES_QUICK = 1
"""The number of passes over the items in a scan, which take 50-100 ms, and almost no time."""

_RUN_TIMES = 10

_WORK = "500 point reads and 80 one-row writes a second at random moments, a scan every 1.5 s"
_PACES = {"reads": Pace(500), "writes": Pace(80), "scans": Pace(1 / 1.5, evenly=True)}

_CONTENDERS: tuple[Contender, ...] = tuple(
    OpenLoop.of(one)
    for one in (
        catalogue.stock,
        catalogue.swap_in,
        catalogue.both_engines,
        catalogue.blocks,
        catalogue.closures,
        catalogue.core_closures,
        catalogue.in_threads,
    )
)


def loads(plan: Plan) -> list[Load]:
    times = _TIMES_QUICK if plan.quick else _TIMES
    parts = tuple(
        replace(part, pace=_PACES[part.name], title=_WORK)
        for part in (*READS_AND_WRITES, replace(SCANS, operation=partial(scan, times)))
    )
    return [Load(OPEN_LOOP, parts, fill, _CONTENDERS, moved, times=_RUN_TIMES)]
