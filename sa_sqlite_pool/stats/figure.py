"""What a figure for monitoring systems is, and how one is declared for ``figures.py``."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .database import DatabaseStatistics
from .engines import EngineStatistics
from .lines import Waits


class FigureKind(enum.Enum):
    """What a figure is to a monitoring system."""

    COUNTER = "counter"
    """It only grows, and begins anew with the process."""
    GAUGE = "gauge"
    """The state at this moment."""
    HISTOGRAM = "histogram"
    """The number of waits by how long they have lasted."""


Sample = tuple[tuple[str, ...], float | Waits]
"""The values of the attributes, and the value: of a histogram, the waits."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: its name, unit (https://ucum.org) and meaning, and how it is read.

    ``attributes`` are the names of what its samples are told apart by, beside the database.
    """

    name: str
    kind: FigureKind
    unit: str
    meaning: str
    attributes: tuple[str, ...]
    read: Callable[[DatabaseStatistics], Iterator[Sample]]


COUNTER, GAUGE, HISTOGRAM = FigureKind.COUNTER, FigureKind.GAUGE, FigureKind.HISTOGRAM

_Read = Callable[[DatabaseStatistics], float | Waits | None]
_ReadEngine = Callable[[EngineStatistics], float | Waits | None]


def of_database(name: str, kind: FigureKind, unit: str, meaning: str, read: _Read) -> Figure:
    """Return a figure without attributes; where ``read`` returns None, there is none."""

    def samples(found: DatabaseStatistics) -> Iterator[Sample]:
        if (value := read(found)) is not None:
            yield (), value

    return Figure(name, kind, unit, meaning, (), samples)


def by(
    attribute: str,
    name: str,
    unit: str,
    meaning: str,
    **reads: Callable[[DatabaseStatistics], float],
) -> Figure:
    """Return a counter with one attribute, whose values are the keywords."""

    def samples(found: DatabaseStatistics) -> Iterator[Sample]:
        for value, read in reads.items():
            yield (value,), read(found)

    return Figure(name, COUNTER, unit, meaning, (attribute,), samples)


def of_engines(
    name: str, kind: FigureKind, unit: str, meaning: str, read: _ReadEngine, *, line: bool = False
) -> Figure:
    """Return a figure of each engine; ``line``: of the line for connections.

    A writer's line is the turn's. Where ``read`` returns None, there is none.
    """

    def samples(found: DatabaseStatistics) -> Iterator[Sample]:
        for engine in found.engines:
            value = read(engine)
            if value is not None and not (line and engine.role == "writer"):
                yield (engine.role,), value

    return Figure(name, kind, unit, meaning, ("role",), samples)


def of_engines_by(
    attribute: str,
    name: str,
    kind: FigureKind,
    unit: str,
    meaning: str,
    **reads: Callable[[EngineStatistics], float],
) -> Figure:
    """Return a figure of each engine with one attribute more, whose values are the keywords."""

    def samples(found: DatabaseStatistics) -> Iterator[Sample]:
        for engine in found.engines:
            for value, read in reads.items():
                yield (engine.role, value), read(engine)

    return Figure(name, kind, unit, meaning, ("role", attribute), samples)


def outcomes(waits: Waits) -> Iterator[tuple[str, float]]:
    in_vain = waits.timed_out + waits.cancelled + waits.sent_away
    yield "at_once", waits.at_once
    yield "waited", max(0, waits.waited - in_vain)
    yield "timed_out", waits.timed_out
    yield "cancelled", waits.cancelled
    yield "sent_away", waits.sent_away


def of_turn(name: str, meaning: str, read: Callable[[DatabaseStatistics], Waits]) -> Figure:
    def samples(found: DatabaseStatistics) -> Iterator[Sample]:
        for outcome, value in outcomes(read(found)):
            yield (outcome,), value

    return Figure(name, COUNTER, "{request}", meaning, ("outcome",), samples)
