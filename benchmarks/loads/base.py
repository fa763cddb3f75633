"""What a load consists of."""

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
    """What the command was asked for.

    :param quick: everything once, for a moment, by a handful of tasks: does it run?
    :param large: files of gigabytes, too
    :param scale: how large a share of the published numbers of rows there is
    """

    quick: bool = False
    large: bool = False
    scale: float = 0.01


@dataclass(frozen=True, slots=True)
class Load:
    """The same work for several contenders.

    :param parts: what is done at once
    :param fill: creates and fills the tables, once
    :param effects: how many writing operations have left their mark in the file
    :param may_lose: contenders whose books need not balance: that they do not is the result
    :param times: how many times as long as others it runs: its operations are long
    :param synchronous: the PRAGMA, of all contenders
    :param in_line: the clock starts when each task has done one operation
    :param shared: all use the same file, which nobody writes: it is too large for copies
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
        """For a plan that is quick."""
        parts = (replace(part, tasks=min(part.tasks, _QUICK_TASKS)) for part in self.parts)
        return replace(self, parts=tuple(parts), times=1)

    def among(self, names: Collection[str]) -> Load:
        """The load with these contenders, the baseline and the synchronous one."""
        first, *others = self.contenders
        wanted = {SYNCHRONOUS, *names}
        return replace(self, contenders=(first, *(one for one in others if one.name in wanted)))


Loads = Callable[[Plan], list[Load]]
"""What one name on the command line stands for."""
