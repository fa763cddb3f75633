"""Metrics and spans for OpenTelemetry, following its semantic conventions.

::

    from sa_sqlite_pool.integrations import opentelemetry

    db = SQLiteDatabase("sqlite+aiosqlite:///app.db")
    instrumentation = opentelemetry.instrument(db)

It records ``db.client.operation.duration`` and ``db.client.connection.*``
(https://opentelemetry.io/docs/specs/semconv/db/database-metrics/), the package's counters as
``sa_sqlite_pool.*``, and a span ``sa_sqlite_pool.wait`` for each wait in line. For spans of
statements, use OpenTelemetry's own ``opentelemetry-instrumentation-sqlalchemy``.
"""

from ...extras import imports_of_extra

with imports_of_extra("opentelemetry", __name__):
    import opentelemetry.metrics as _api  # noqa: F401

from .instrumentation import Instrumentation, instrument

__all__ = ["Instrumentation", "instrument"]
