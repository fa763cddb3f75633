"""The OpenTelemetry instruments of one meter provider, for all databases that it records."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Final, final

from opentelemetry.metrics import CallbackOptions, Meter, Observation
from sqlalchemy import Engine

from ...mutex import new_lock
from ...stats.database import DatabaseStatistics
from ...stats.engines import EngineStatistics
from ...stats.figure import Figure, FigureKind
from ...stats.figures import FIGURES, PREFIX
from ...stats.lines import BOUNDS_SECONDS, Waits
from ...system.clock import time
from ..sources import Source, pool_of

SCOPE: Final = PREFIX

# Figures that are recorded under OpenTelemetry's own names.
_BY_CONVENTION = frozenset(
    {"connections", "connections.max", "connections.waiting", "connections.wait"}
)

# Seconds for which a snapshot is reused, by the other instruments of the same collection.
_FRESH_SECONDS = 1.0


@final
class InstrumentedEngine:
    """An engine, with the attributes of what is recorded of it.

    ``engine()`` returns it, and None if it is garbage.
    """

    def __init__(self, name: str, engine: Engine) -> None:
        role = pool_of(engine).role.value
        self.engine = weakref.ref(engine)
        self.role = role
        self.of_database = {"db.system.name": "sqlite", "db.namespace": name}
        self.of_pool = {"db.client.connection.pool.name": f"{name}/{role}"}


@final
class Instruments:
    """All instruments. Databases are added and removed; a collection reads the current ones."""

    def __init__(self, meter: Meter) -> None:
        self._sources: dict[Source, list[InstrumentedEngine]] = {}
        self._mutex = new_lock()
        self._snapshots: list[tuple[Source, DatabaseStatistics]] = []
        self._taken_at = float("-inf")
        self._seen: set[str] = set()  # instruments that have read the current snapshots
        self._observe_figures(meter)
        self._observe_connections(meter)
        self._make_recorded(meter)

    def add(self, source: Source, engines: list[InstrumentedEngine]) -> None:
        with self._mutex:
            self._sources[source] = engines

    def remove(self, source: Source) -> None:
        with self._mutex:
            self._sources.pop(source, None)
            self._snapshots = [one for one in self._snapshots if one[0] is not source]

    # -- instruments recorded at the event ------------------------------------------------------

    def _make_recorded(self, meter: Meter) -> None:
        def histogram(name: str, description: str) -> Any:
            return meter.create_histogram(
                name, "s", description, explicit_bucket_boundaries_advisory=BOUNDS_SECONDS
            )

        self.operation_duration = histogram(
            "db.client.operation.duration", "Duration of database client operations."
        )
        self.create_time = histogram(
            "db.client.connection.create_time", "The time it took to create a new connection."
        )
        self.wait_time = histogram(
            "db.client.connection.wait_time",
            "The time it took to obtain an open connection from the pool.",
        )
        self.use_time = histogram(
            "db.client.connection.use_time",
            "The time between borrowing a connection and returning it to the pool.",
        )
        self.timeouts = meter.create_counter(
            "db.client.connection.timeouts",
            "{timeout}",
            "The number of connection timeouts that have occurred trying to obtain a connection "
            "from the pool.",
        )
        histograms = {
            figure.name: histogram(f"{PREFIX}.{figure.name}", f"{figure.meaning}.")
            for figure in FIGURES
            if figure.kind is FigureKind.HISTOGRAM and figure.name not in _BY_CONVENTION
        }
        self.turn_wait = histograms.pop("turn.wait")
        self.process_wait = histograms.pop("turn.process_wait")
        assert not histograms

    # -- instruments read at collection ---------------------------------------------------------

    def _observe_figures(self, meter: Meter) -> None:
        create = {
            FigureKind.COUNTER: meter.create_observable_counter,
            FigureKind.GAUGE: meter.create_observable_gauge,
        }
        for figure in FIGURES:
            if figure.name not in _BY_CONVENTION and figure.kind is not FigureKind.HISTOGRAM:
                callback = partial(self._figure, figure)
                create[figure.kind](
                    f"{PREFIX}.{figure.name}", [callback], figure.unit, f"{figure.meaning}."
                )

    def _figure(self, figure: Figure, _: CallbackOptions) -> Iterator[Observation]:
        keys = [f"{PREFIX}.{attribute}" for attribute in figure.attributes]
        for source, found in self._current(figure.name):
            for values, value in figure.read(found):
                assert not isinstance(value, Waits)
                yield Observation(
                    value, {"db.namespace": source.name, **dict(zip(keys, values, strict=True))}
                )

    def _observe_connections(self, meter: Meter) -> None:
        def observe(name: str, unit: str, description: str) -> None:
            def callback(_: CallbackOptions) -> Iterable[Observation]:
                for engine, found in self._engines(name):
                    yield from _connections(name, engine, found)

            meter.create_observable_up_down_counter(
                f"db.client.connection.{name}", [callback], unit, description
            )

        connection = "{connection}"
        observe(
            "count",
            connection,
            "The number of connections that are currently in state described by the state "
            "attribute.",
        )
        observe("idle.max", connection, "The maximum number of idle open connections allowed.")
        observe("max", connection, "The maximum number of open connections allowed.")
        observe(
            "pending_requests",
            "{request}",
            "The number of current pending requests for an open connection.",
        )

    def _engines(self, asks: str) -> Iterator[tuple[InstrumentedEngine, EngineStatistics]]:
        for source, found in self._current(f"db.client.connection.{asks}"):
            for engine in self._sources.get(source, ()):
                yield engine, found.engine(engine.role)

    def _current(self, asks: str) -> list[tuple[Source, DatabaseStatistics]]:
        """Return the statistics of all open databases: one snapshot for each collection.

        A collection reads each instrument once: one that ``asks`` again starts the next collection.
        """
        with self._mutex:
            now = time.monotonic()
            if asks in self._seen or now - self._taken_at > _FRESH_SECONDS:
                found = ((source, source.statistics()) for source in self._sources)
                self._snapshots = [(one, its) for one, its in found if its is not None]
                self._taken_at = now
                self._seen.clear()
            self._seen.add(asks)
            return self._snapshots


def _connections(
    name: str, engine: InstrumentedEngine, found: EngineStatistics
) -> Iterator[Observation]:
    connections, pool = found.connections, engine.of_pool
    if name == "count":
        idle = connections.at_rest + connections.kept
        yield Observation(idle, {**pool, "db.client.connection.state": "idle"})
        yield Observation(connections.on_loan, {**pool, "db.client.connection.state": "used"})
    elif name == "pending_requests":
        yield Observation(found.waiting, pool)
    elif connections.capacity is not None:  # no idle connection is closed: both limits are equal
        yield Observation(connections.capacity, pool)
