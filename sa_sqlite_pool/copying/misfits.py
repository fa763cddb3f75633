"""What does not fit: frozen values, counted by kind and column, with the first of each named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from .columns.base import Kind, Problem, shown

EXAMPLES = 10
"""How many misfits of a kind and column are named; all are counted."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """A value that does not fit: the ``key`` of its row, what was ``found``, and ``why``."""

    key: Mapping[str, Any]
    found: str
    why: str

    def __str__(self) -> str:
        return f"{key_text(self.key)}: {self.found}: {self.why}"


@dataclass(frozen=True, slots=True)
class Misfits:
    """Misfits of one kind in one column, or in the columns of one constraint."""

    table: str
    column: str
    kind: str
    total: int
    first: Sequence[Misfit]


@dataclass(slots=True)
class _Group:
    total: int = 0
    first: list[Misfit] = field(default_factory=list)


@final
class Collector:
    """Misfits as they are found. It keeps few of them, however many there are."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str, Kind], _Group] = {}

    def add(
        self, table: str, column: str, key: Mapping[str, Any], value: Any, problem: Problem
    ) -> None:
        """Count a misfit; keep it if it is one of the first."""
        group = self._groups.setdefault((table, column, problem.kind), _Group())
        group.total += 1
        if len(group.first) < EXAMPLES:
            group.first.append(Misfit(key, shown(value), problem.why))

    def forget(self, table: str) -> None:
        """Forget what was found in a table, which is examined anew."""
        for name in [name for name in self._groups if name[0] == table]:
            del self._groups[name]

    def result(self) -> tuple[Misfits, ...]:
        """Return what was found, in the order in which it was met."""
        return tuple(
            Misfits(table, column, kind.value, group.total, tuple(group.first))
            for (table, column, kind), group in self._groups.items()
        )


def key_text(key: Mapping[str, Any]) -> str:
    """Return a key as it is shown: ``id=7``."""
    return ", ".join(f"{name}={shown(value)}" for name, value in key.items())
