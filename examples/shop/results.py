"""What the load client tells the driver: one JSON line each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class Latencies:
    """The answered requests of one class; failed ones are counted as errors instead."""

    per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, waits_ms: Sequence[float], *, per_second: float) -> Latencies:
        """Summarise; all zero where nothing was answered."""
        ordered = sorted(waits_ms) or [0.0]
        p50, p99 = (ordered[int((len(ordered) - 1) * share)] for share in (0.50, 0.99))
        return cls(per_second, p50, p99, ordered[-1])


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """An order that a client was told is stored (201), and the pieces it was told."""

    order: int
    units: int


@dataclass(frozen=True, slots=True)
class OwnOrders:
    """Looks of customers at the order that they had just placed, and how many did not find it."""

    looks: int = 0
    not_found: int = 0


@dataclass(frozen=True, slots=True)
class Tick:
    """The load still runs."""

    elapsed_s: float
    requests: int


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What the clients saw."""

    reads: Latencies
    writes: Latencies
    out_of_stock: int
    errors: dict[str, int]
    acknowledged: tuple[Acknowledged, ...]
    own_orders: OwnOrders
    client_cpu_share: float

    @property
    def requests_per_second(self) -> float:
        """Both classes together."""
        return self.reads.per_second + self.writes.per_second

    @property
    def failed(self) -> int:
        """Requests without a legal answer."""
        return sum(self.errors.values())


_LINE: TypeAdapter[Tick | LoadResult] = TypeAdapter(Tick | LoadResult)


def to_line(message: Tick | LoadResult) -> str:
    """One line of JSON, without its end."""
    return _LINE.dump_json(message).decode()


def from_line(line: str) -> Tick | LoadResult:
    """The message of that line; ValueError for anything else."""
    return _LINE.validate_json(line)
