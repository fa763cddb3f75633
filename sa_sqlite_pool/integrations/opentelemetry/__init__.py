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

from .. import without_library

try:
    from opentelemetry import metrics as _metrics  # noqa: F401
except ModuleNotFoundError as _error:
    raise without_library(_error, "opentelemetry") from _error

from .instrumentation import Instrumentation, instrument

__all__ = ["Instrumentation", "instrument"]
