"""The parts of a load."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Connection

from ..report.results import Point
from ..ways.contenders import SYNCHRONOUS, Contender, Part

_QUICK_TASKS = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of the command.

    :param quick: everything once, briefly, by a handful of tasks, to check that it runs
    :param large: also use files of gigabytes
    :param scale: the share of the published numbers of rows to create
    """

    quick: bool = False
    large: bool = False
    scale: float = 0.01


@dataclass(frozen=True, slots=True)
class Load:
    """The same work for several contenders.

    :param parts: the parts that run concurrently
    :param fill: creates and fills the tables, once
    :param effects: returns the number of writing operations whose effect is in the file
    :param may_lose: contenders whose books need not balance: the difference is the result
    :param times: the factor by which it runs longer than others, if its operations are long
    :param synchronous: the PRAGMA, for all contenders
    :param in_line: start the clock when each task has done one operation
    :param shared: all contenders read the same file, which is too large to copy
    """

    name: str
    parts: tuple[Part, ...]
    fill: Callable[[Connection], None]
    contenders: tuple[Contender, ...]
    effects: Callable[[Path], int] | None = None
    synchronous: str = "NORMAL"
    may_lose: frozenset[str] = frozenset()
    point: Point | None = None
    times: int = 1
    in_line: bool = False
    shared: bool = False

    def shrunk(self) -> Load:
        """Return the load for a quick plan."""
        parts = (replace(part, tasks=min(part.tasks, _QUICK_TASKS)) for part in self.parts)
        return replace(self, parts=tuple(parts), times=1)

    def among(self, names: Collection[str]) -> Load:
        """Return the load with these contenders, the baseline and the synchronous one."""
        first, *others = self.contenders
        wanted = {SYNCHRONOUS, *names}
        return replace(self, contenders=(first, *(one for one in others if one.name in wanted)))


Loads = Callable[[Plan], list[Load]]
"""The loads that one name on the command line stands for."""
