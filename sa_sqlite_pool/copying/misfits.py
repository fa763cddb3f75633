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
    """A value that does not fit: the ``key`` of its row, what was ``found``, and ``why``.

    A misfit of the schema has no key.
    """

    key: Mapping[str, Any]
    found: str
    why: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (key_text(self.key), self.found, self.why)))


@dataclass(frozen=True, slots=True)
class Misfits:
    """Misfits of one kind in one column, or in the columns of one constraint.

    With the kind ``schema``, ``column`` may be the name of an index or a foreign key, or empty.
    """

    table: str
    column: str
    kind: str
    total: int
    first: Sequence[Misfit]

    @property
    def place(self) -> str:
        """The table and the column, for messages."""
        return f"{self.table}.{self.column}" if self.column else self.table


def headline(misfits: Sequence[Misfits]) -> str:
    """Return a text that says how many values, and how many parts of the models, do not fit."""
    schema = sum(group.total for group in misfits if group.kind == Kind.SCHEMA.value)
    values = sum(group.total for group in misfits) - schema
    parts = [f"values that do not fit: {values:,}"] if values or not schema else []
    if schema:
        parts.append(f"parts of the models that PostgreSQL does not accept: {schema:,}")
    return ", ".join(parts)


@dataclass(slots=True)
class _Group:
    total: int = 0
    first: list[Misfit] = field(default_factory=list)


@final
class Collector:
    """Collects misfits as they are found, and keeps only a few, however many there are."""

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

    def add_schema(self, table: str, name: str, found: str, why: str) -> None:
        """Add a part of the models that the server refuses: ``name`` is a column, index or key."""
        group = self._groups.setdefault((table, name, Kind.SCHEMA), _Group())
        group.total += 1
        group.first.append(Misfit({}, found, why))

    def forget(self, table: str) -> None:
        """Discard what was found in a table, which is examined again from the beginning."""
        for name in [name for name in self._groups if name[0] == table and name[2] != Kind.SCHEMA]:
            del self._groups[name]

    def result(self) -> tuple[Misfits, ...]:
        """Return the misfits, in the order in which they were found."""
        return tuple(
            Misfits(table, column, kind.value, group.total, tuple(group.first))
            for (table, column, kind), group in self._groups.items()
        )


def key_text(key: Mapping[str, Any]) -> str:
    """Return a key as messages show it: ``id=7``."""
    return ", ".join(f"{name}={shown(value)}" for name, value in key.items())
