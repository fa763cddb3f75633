"""Metrics for Prometheus, through its own client: https://prometheus.github.io/client_python/

::

    from prometheus_client import start_http_server
    from sa_sqlite_pool.integrations import prometheus

    db = SQLiteDatabase("sqlite+aiosqlite:///app.db")
    prometheus.register(db)
    start_http_server(8000)

Each scrape reads the package's counters, in the thread of the scrape. It sends nothing to SQLite,
and does not wait.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeAlias, final
from weakref import WeakKeyDictionary

from ..errors import ConfigurationError
from ..extras import imports_of_extra
from ..mutex import new_lock
from ..stats.figure import Figure, FigureKind
from ..stats.figures import FIGURES, PREFIX
from ..stats.lines import BOUNDS_SECONDS, Waits
from .sources import Monitored, Source

with imports_of_extra("prometheus", __name__):
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.registry import Collector

_Family: TypeAlias = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily

_FAMILIES: dict[FigureKind, type[_Family]] = {
    FigureKind.COUNTER: CounterMetricFamily,
    FigureKind.GAUGE: GaugeMetricFamily,
    FigureKind.HISTOGRAM: HistogramMetricFamily,
}
# https://prometheus.io/docs/practices/naming/
_UNITS = {"s": "seconds", "By": "bytes"}
_BOUNDS = [*(str(bound) for bound in BOUNDS_SECONDS), "+Inf"]


def register(
    monitored: Monitored, registry: CollectorRegistry = REGISTRY, *, name: str | None = None
) -> None:
    """Export the metrics of a database, or of the application's own engine, with ``registry``.

    It may be registered before it is opened. Before that, and once it is closed, it exports
    nothing. Registering it again has no effect, for example in a lifespan that runs again. Any
    number may be registered; the label ``database`` distinguishes them.

    :param monitored: a :class:`~sa_sqlite_pool.SQLiteDatabase`, or an engine with a pool of this
        package
    :param name: the value of the label; by default the name of the file

    Raise :class:`~sa_sqlite_pool.ConfigurationError` if it is already registered with another name,
    or another with this name, or if it is an engine with another pool.
    """
    source = Source(monitored, name)
    with _mutex:
        collector = _collectors.get(registry)
        if collector is None:
            collector = DatabaseCollector()
            registry.register(collector)
            _collectors[registry] = collector
        collector.add(source)


def unregister(monitored: Monitored, registry: CollectorRegistry = REGISTRY) -> None:
    """Stop exporting its metrics; do nothing if it is not registered."""
    with _mutex:
        collector = _collectors.get(registry)
        if collector is not None and not collector.remove(monitored):
            del _collectors[registry]
            registry.unregister(collector)


def metric_name(figure: Figure) -> str:
    """Return the Prometheus name of a figure, without the suffixes of its samples."""
    words = [PREFIX, *figure.name.split(".")]
    if figure.unit in _UNITS:
        words.append(_UNITS[figure.unit])
    return "_".join(words)


_collectors: WeakKeyDictionary[CollectorRegistry, DatabaseCollector] = WeakKeyDictionary()
_mutex = new_lock()


@final
class DatabaseCollector(Collector):
    """The collector of all databases of one registry, with one family for each metric.

    Its databases change under :data:`_mutex`; a scrape reads them without it.
    """

    def __init__(self) -> None:
        self._sources: tuple[Source, ...] = ()

    def add(self, source: Source) -> None:
        """Add a database, in the place of one of its name that is closed; it may be there."""
        if any(one.is_same(source) for one in self._sources):
            return
        others = tuple(one for one in self._sources if not _makes_way(one, source))
        if any(one.overlaps(source) for one in others):
            raise ConfigurationError(
                f"{source.name!r} is registered already; unregister() it first"
            )
        if any(one.name == source.name for one in others):
            raise ConfigurationError(
                f"another {source.name!r} is registered already: pass a different name= "
                "to distinguish their metrics, or unregister() the other first"
            )
        self._sources = (*others, source)

    def remove(self, monitored: Monitored) -> bool:
        """Remove a database, and return whether others remain."""
        self._sources = tuple(one for one in self._sources if not one.is_of(monitored))
        return bool(self._sources)

    def describe(self) -> Iterator[_Family]:
        """Yield all metrics without samples, so a registry can refuse a duplicate collector."""
        for figure in FIGURES:
            yield _family(figure)

    def collect(self) -> Iterable[_Family]:
        """Yield all metrics of the databases that are open now."""
        found = [(one.name, one.statistics()) for one in self._sources]
        for figure in FIGURES:
            family = _family(figure)
            for name, statistics in found:
                for values, value in () if statistics is None else figure.read(statistics):
                    _add(family, [name, *values], value)
            yield family


def _makes_way(one: Source, source: Source) -> bool:
    """Return whether ``one`` is dropped for ``source``. What is closed may be opened again."""
    same = one.name == source.name or one.overlaps(source)
    return one.is_gone or (one.is_closed and same)


def _family(figure: Figure) -> _Family:
    labels = ["database", *figure.attributes]
    return _FAMILIES[figure.kind](metric_name(figure), figure.meaning, labels=labels)


def _add(family: _Family, labels: list[str], value: float | Waits) -> None:
    if isinstance(family, HistogramMetricFamily):
        assert isinstance(value, Waits)
        counts = itertools.accumulate(value.histogram)
        buckets = list(zip(_BOUNDS, map(float, counts), strict=True))
        family.add_metric(labels, buckets, value.seconds)
    else:
        assert not isinstance(value, Waits)
        family.add_metric(labels, value)
