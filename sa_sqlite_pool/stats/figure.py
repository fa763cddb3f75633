"""The class of a figure for monitoring systems, and helpers to declare those in ``figures.py``."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from .database import DatabaseStatistics
from .engines import EngineStatistics
from .lines import Waits


class FigureKind(enum.Enum):
    """The kind of metric that a figure is to a monitoring system."""

    COUNTER = "counter"
    """A number that only grows, and starts at zero with the process."""
    GAUGE = "gauge"
    """The state at this moment."""
    HISTOGRAM = "histogram"
    """The number of waits by duration."""


Sample = tuple[tuple[str, ...], float | Waits]
"""The values of the attributes, and the value; for a histogram, the waits."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: its name, unit (https://ucum.org) and meaning, and the function that reads it.

    ``attributes`` names the attributes that distinguish its samples, besides the database.
    """

    name: str
    kind: FigureKind
    unit: str
    meaning: str
    attributes: tuple[str, ...]
    read: Callable[[DatabaseStatistics], Iterator[Sample]]


COUNTER, GAUGE, HISTOGRAM = FigureKind.COUNTER, FigureKind.GAUGE, FigureKind.HISTOGRAM

Values = float | Waits | Mapping[str, float] | None
"""The value of a figure: None if it is absent, or a number for each value of an attribute."""


def of_database(
    name: str,
    kind: FigureKind,
    unit: str,
    meaning: str,
    read: Callable[[DatabaseStatistics], Values],
    *,
    by: str | None = None,
) -> Figure:
    """Return a figure of the database; ``by`` names the attribute whose values ``read`` returns."""

    def samples(found: DatabaseStatistics) -> Iterator[Sample]:
        yield from _samples((), read(found))

    return Figure(name, kind, unit, meaning, _attributes(by), samples)


def of_engines(
    name: str,
    kind: FigureKind,
    unit: str,
    meaning: str,
    read: Callable[[EngineStatistics], Values],
    *,
    by: str | None = None,
    line: bool = False,
) -> Figure:
    """Return a figure of each engine; ``by`` is as above, ``line``: of the line for connections.

    A writer's line is the turn's, so ``line`` leaves writers out.
    """

    def samples(found: DatabaseStatistics) -> Iterator[Sample]:
        for engine in found.engines:
            if not (line and engine.role == "writer"):
                yield from _samples((engine.role,), read(engine))

    return Figure(name, kind, unit, meaning, ("role", *_attributes(by)), samples)


def _attributes(by: str | None) -> tuple[str, ...]:
    return () if by is None else (by,)


def _samples(attributes: tuple[str, ...], found: Values) -> Iterator[Sample]:
    if isinstance(found, Mapping):
        for value, number in found.items():
            yield (*attributes, value), number
    elif found is not None:
        yield attributes, found


def outcomes(waits: Waits) -> dict[str, float]:
    """Return the number of requests by outcome."""
    in_vain = waits.timed_out + waits.cancelled + waits.sent_away
    return {
        "at_once": waits.at_once,
        "waited": max(0, waits.waited - in_vain),
        "timed_out": waits.timed_out,
        "cancelled": waits.cancelled,
        "sent_away": waits.sent_away,
    }
