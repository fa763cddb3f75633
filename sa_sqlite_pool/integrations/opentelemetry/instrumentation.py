"""The instrumentation of a database or an engine for OpenTelemetry, until it is removed."""

from __future__ import annotations

from typing import Any, final
from weakref import WeakKeyDictionary

from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
from sqlalchemy import exc

from ...errors import ConfigurationError
from ...mutex import new_lock
from ...pools.impl import WriterPool
from ...turn.waits import ObservedWait, WaitedFor
from ..sources import Monitored, Source, pool_of
from .events import Listeners, error_type
from .instruments import SCOPE, InstrumentedEngine, Instruments

_NANOSECONDS = 1_000_000_000

# The names of waits in spans.
_NAMES = {
    WaitedFor.TURN: "turn",
    WaitedFor.PROCESS: "process",
    WaitedFor.READER: "connection",
    WaitedFor.CONNECTION: "connection",
}


def instrument(
    monitored: Monitored,
    meter_provider: MeterProvider | None = None,
    tracer_provider: TracerProvider | None = None,
    *,
    name: str | None = None,
) -> Instrumentation:
    """Record metrics and waits of a database, or of the application's own engine, from now on.

    It may be called before the database is opened, and before the providers are set. Calling it
    again with the same arguments, for example in a lifespan that runs again, returns what it has
    returned before. Any number of databases may be instrumented; ``db.namespace`` distinguishes
    them.

    :param monitored: a :class:`~sa_sqlite_pool.SQLiteDatabase`, or an engine with a pool of this
        package
    :param meter_provider: records the metrics, by default the global one
    :param tracer_provider: records the spans, by default the global one
    :param name: the value of ``db.namespace``; by default the name of the file

    Raise :class:`~sa_sqlite_pool.ConfigurationError` if it is already instrumented with other
    arguments, or is an engine with another pool.
    """
    source, providers = Source(monitored, name), (meter_provider, tracer_provider)
    for earlier in list(_instrumentations):
        known = earlier.source
        if known.is_same(source) and earlier.providers == providers:
            return earlier
        if known.is_gone or (known.is_closed and known.overlaps(source)):
            earlier.uninstrument()
    tracer = trace.get_tracer(SCOPE, tracer_provider=tracer_provider)
    with _mutex:
        if any(one.source.overlaps(source) for one in _instrumentations):
            raise ConfigurationError(
                f"{source.name!r} is instrumented already; call uninstrument() on the earlier one "
                "first"
            )
        found = Instrumentation(source, _instruments_of(meter_provider), tracer, providers)
        _instrumentations.add(found)
    return found


@final
class Instrumentation:
    """The result of :func:`instrument`; :meth:`uninstrument` undoes it."""

    def __init__(
        self,
        source: Source,
        instruments: Instruments,
        tracer: trace.Tracer,
        providers: tuple[MeterProvider | None, TracerProvider | None],
    ) -> None:
        self.source = source
        self.providers = providers  # as given
        self._instruments = instruments
        self._tracer = tracer
        self._engines = [InstrumentedEngine(source.name, engine) for engine in source.engines]
        self._listeners = [Listeners(engine, instruments) for engine in self._engines]
        for instrumented, engine in zip(self._engines, source.engines, strict=True):
            observer = _Observer(instrumented, instruments, tracer)
            pool_of(engine).wait_watch.observer = observer
        instruments.add(source, self._engines)

    def uninstrument(self) -> None:
        """Stop recording. Calling this again does nothing."""
        with _mutex:
            if self not in _instrumentations:
                return
            _instrumentations.discard(self)
        self._instruments.remove(self.source)
        for listeners in self._listeners:
            listeners.remove()
        for engine in self.source.engines:
            pool_of(engine).wait_watch.observer = None


_instrumentations: set[Instrumentation] = set()
_mutex = new_lock()

# An OpenTelemetry instrument keeps its callbacks for ever, and another instrument of the same name
# accepts none. So each provider has one set of instruments, for all databases.
_by_provider: WeakKeyDictionary[MeterProvider, Instruments] = WeakKeyDictionary()
_global: list[Instruments] = []


def _instruments_of(provider: MeterProvider | None) -> Instruments:
    if provider is None or provider is metrics.get_meter_provider():
        if not _global:  # the global provider may be set later
            _global.append(Instruments(metrics.get_meter(SCOPE)))
        return _global[0]
    found = _by_provider.get(provider)
    if found is None:
        found = _by_provider[provider] = Instruments(provider.get_meter(SCOPE))
    return found


@final
class _Observer:
    """An observer that records the waits of one engine."""

    def __init__(
        self, engine: InstrumentedEngine, instruments: Instruments, tracer: trace.Tracer
    ) -> None:
        self._engine = engine
        self._instruments = instruments
        self._tracer = tracer

    def __call__(self, wait: ObservedWait) -> None:
        instruments, engine = self._instruments, self._engine
        if wait.what is WaitedFor.TURN:
            instruments.turn_wait.record(wait.seconds, engine.of_database)
        elif wait.what is WaitedFor.PROCESS:
            instruments.process_wait.record(wait.seconds, engine.of_database)
        # The turn is the checkout of a writer.
        gives = WaitedFor.TURN if engine.role == WriterPool.role.value else None
        is_checkout = wait.what in {WaitedFor.CONNECTION, WaitedFor.READER, gives}
        if is_checkout and isinstance(wait.error, exc.TimeoutError):
            instruments.timeouts.add(1, engine.of_pool)
        self._trace(wait)

    def _trace(self, wait: ObservedWait) -> None:
        span = self._tracer.start_span(
            f"{SCOPE}.wait",
            kind=SpanKind.INTERNAL,
            attributes={**self._engine.of_database, f"{SCOPE}.waits_for": _NAMES[wait.what]},
            start_time=wait.began_ns,
        )
        if span.is_recording():
            _describe(span, wait)
        span.end(wait.began_ns + int(wait.seconds * _NANOSECONDS))


def _describe(span: Span, wait: ObservedWait) -> None:
    """Add the holder, as it was when the wait began, and the outcome of the wait."""
    found: dict[str, Any] = {}
    if wait.holder is not None:
        found["holder.task"] = wait.holder.task
        found["holder.asked_at"] = wait.holder.asked_at
        found["holder.now_at"] = wait.holder.now_at
        found["holder.seconds"] = wait.holder.seconds
    found["holder.process"] = wait.process
    for key, value in found.items():
        if value is not None:
            span.set_attribute(f"{SCOPE}.{key}", value)
    if wait.error is not None:
        span.set_attribute("error.type", error_type(wait.error))
        if isinstance(wait.error, Exception):  # otherwise, it is a cancellation
            span.set_status(Status(StatusCode.ERROR, str(wait.error)))
