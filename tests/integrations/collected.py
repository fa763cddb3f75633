"""Metrics, as the SDK's in-memory reader collects them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from sqlalchemy import text

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.integrations.opentelemetry import Instrumentation, instrument
from tests.helpers import UPDATE_FIRST

DURATION = "db.client.operation.duration"
CONNECTION = "db.client.connection."


def short_keys(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes by the last words of their names."""
    return {key.rpartition(".")[2]: value for key, value in attributes.items()}


class Metrics:
    """The metrics that the SDK's in-memory reader has collected."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader])

    def points(self) -> dict[str, list[Any]]:
        data = self._reader.get_metrics_data()
        scopes = [] if data is None else data.resource_metrics[0].scope_metrics
        return {m.name: list(m.data.data_points) for scope in scopes for m in scope.metrics}

    def point(self, name: str, /, **attributes: str) -> Any:
        """Return the only point of a metric with these attributes, given by their last words."""
        found = [
            point
            for point in self.points().get(name, [])
            if attributes.items() <= short_keys(point.attributes).items()
        ]
        assert len(found) == 1, (name, found)
        return found[0]

    def value(self, name: str, /, **attributes: str) -> float:
        return float(self.point(name, **attributes).value)

    def names(self) -> set[str]:
        return {name for name, points in self.points().items() if points}

    def units(self) -> dict[str, str | None]:
        data = self._reader.get_metrics_data()
        assert data is not None
        scopes = data.resource_metrics[0].scope_metrics
        return {metric.name: metric.unit for scope in scopes for metric in scope.metrics}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


Record = Callable[..., Instrumentation]


@pytest.fixture
def record(metrics: Metrics) -> Iterator[Record]:
    """Provide ``instrument()`` with the SDK's in-memory reader, undone afterwards."""
    made = []

    def instrumented(monitored: Any, **options: Any) -> Instrumentation:
        made.append(instrument(monitored, metrics.provider, **options))
        return made[-1]

    yield instrumented
    for one in made:
        one.uninstrument()


async def add_one(db: SQLiteDatabase) -> None:
    async with db.write() as session:
        await session.execute(UPDATE_FIRST)


async def read(db: SQLiteDatabase) -> None:
    async with db.read() as session:
        await session.execute(text("SELECT 1"))
