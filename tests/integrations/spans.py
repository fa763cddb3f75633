"""Spans, as the SDK's in-memory exporter receives them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sa_sqlite_pool.integrations.opentelemetry import instrument

Work = Callable[[], Awaitable[Any]]
Traced = Callable[[Any], None]


class Spans:
    """The spans that the SDK's in-memory exporter has received."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("tests")

    async def under(self, name: str, work: Work) -> Any:
        """Run ``work`` in a task, under a span of the application."""

        async def task() -> Any:
            with self.tracer.start_as_current_span(name):
                return await work()

        return await asyncio.create_task(task())

    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        """Return spans by the first word of their names, which for a statement is its verb."""
        return [span for span in self.all() if span.name.split()[0] == name]

    def ancestors(self, span: ReadableSpan) -> list[str]:
        """Return the names of the spans around ``span``, the innermost first."""
        by_id = {one.context.span_id: one for one in self.all() if one.context is not None}
        found = []
        while span.parent is not None:
            span = by_id[span.parent.span_id]
            found.append(span.name)
        return found

    def clear(self) -> None:
        self._exporter.clear()


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def statements_traced(spans: Spans) -> Iterator[None]:
    """Apply OpenTelemetry's own instrumentation to all engines created from now on."""
    instrumentor = SQLAlchemyInstrumentor()
    instrumentor.instrument(tracer_provider=spans.provider, skip_dep_check=True)
    yield
    instrumentor.uninstrument()


@pytest.fixture
def traced(spans: Spans) -> Iterator[Callable[[Any], None]]:
    """Provide ``traced(db)``, which records waits as spans; undone afterwards."""
    made = []
    yield lambda monitored: made.append(instrument(monitored, tracer_provider=spans.provider))
    for one in made:
        one.uninstrument()
