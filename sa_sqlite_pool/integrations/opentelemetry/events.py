"""Listeners for an engine's SQLAlchemy events, which record durations for OpenTelemetry."""

from __future__ import annotations

import time as application_time
from collections.abc import Callable
from typing import Any, final

from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext

from ...sqlite.tokens import first_word
from ...system.clock import time
from ..sources import pool_of
from .instruments import InstrumentedEngine, Instruments

# https://www.sqlite.org/lang.html; others are not recorded, to limit the number of names.
_OPERATIONS = frozenset(
    (  # noqa: SIM905
        "ALTER ANALYZE ATTACH BEGIN COMMIT CREATE DELETE DETACH DROP EXPLAIN INSERT PRAGMA REINDEX "
        "RELEASE REPLACE ROLLBACK SAVEPOINT SELECT UPDATE VACUUM VALUES"
    ).split()
)

_BEGAN = "sa_sqlite_pool_began"


@final
class Listeners:
    """The listeners of one engine, active until they are removed."""

    def __init__(self, engine: InstrumentedEngine, instruments: Instruments) -> None:
        self._engine = engine
        self._instruments = instruments
        self._attributes: dict[str | None, dict[str, str]] = {}  # by operation
        self._listeners: dict[str, Callable[..., None]] = {
            "before_cursor_execute": self._before_execute,
            "after_cursor_execute": self._after_execute,
            "handle_error": self._failed,
            "connect": self._connected,
            "checkout": self._checked_out,
            "checkin": self._checked_in,
        }
        for name, listener in self._listeners.items():
            event.listen(engine.engine(), name, listener)

    def remove(self) -> None:
        engine = self._engine.engine()
        for name, listener in self._listeners.items() if engine is not None else ():
            event.remove(engine, name, listener)

    # -- statements -----------------------------------------------------------------------------

    def _before_execute(
        self, _c: Any, _cursor: Any, _sql: str, _parameters: Any, context: Any, _many: bool
    ) -> None:
        setattr(context, _BEGAN, time.perf_counter())

    def _after_execute(
        self, _c: Any, _cursor: Any, sql: str, parameters: Any, context: Any, many: bool
    ) -> None:
        self._record(context, self._of_operation(sql, parameters, context, many))

    def _failed(self, failure: ExceptionContext) -> None:
        context: Any = failure.execution_context
        if context is None or getattr(context, _BEGAN, None) is None:
            return
        error = failure.original_exception
        parameters, many = failure.parameters, context.executemany
        attributes = dict(self._of_operation(failure.statement or "", parameters, context, many))
        attributes["error.type"] = error_type(error)
        if (code := _result_code(error)) is not None:
            attributes["db.response.status_code"] = code
        self._record(context, attributes)

    def _record(self, context: Any, attributes: dict[str, str]) -> None:
        began = getattr(context, _BEGAN, None)
        if began is not None:
            setattr(context, _BEGAN, None)
            duration = self._instruments.operation_duration
            duration.record(time.perf_counter() - began, attributes)

    def _of_operation(self, sql: str, parameters: Any, context: Any, many: bool) -> dict[str, str]:
        operation = _operation(sql, context)
        if operation is not None and many and len(parameters) > 1:
            operation = f"BATCH {operation}"
        found = self._attributes.get(operation)
        if found is None:
            found = dict(self._engine.of_database)
            if operation is not None:
                found["db.operation.name"] = operation
            self._attributes[operation] = found
        return found

    # -- connections ----------------------------------------------------------------------------

    def _connected(self, _connection: Any, record: Any) -> None:
        # SQLAlchemy's record notes when it began to connect (``__connect()`` in pool/base.py).
        seconds = max(0.0, application_time.time() - record.starttime)
        self._instruments.create_time.record(seconds, self._engine.of_pool)

    def _checked_out(self, _connection: Any, record: Any, _proxy: Any) -> None:
        engine = self._engine.engine()
        permit = None if engine is None else pool_of(engine).checkouts.permit_of(record)
        if permit is not None:
            self._instruments.wait_time.record(permit.seconds_waited, self._engine.of_pool)
            record.record_info[_BEGAN] = time.perf_counter()  # info is cleared with the connection

    def _checked_in(self, _connection: Any, record: Any) -> None:
        began = record.record_info.pop(_BEGAN, None)
        if began is not None:
            self._instruments.use_time.record(time.perf_counter() - began, self._engine.of_pool)


def _operation(sql: str, context: Any) -> str | None:
    """Return the operation: SQLAlchemy knows it for its own statements; else, the first word."""
    if context.isinsert:
        return "INSERT"
    if context.isupdate:
        return "UPDATE"
    if context.isdelete:
        return "DELETE"
    word = first_word(sql)
    if word == "WITH" and context.compiled is not None:
        return "SELECT" if context.compiled.statement.is_select else None
    return word if word in _OPERATIONS else None


def _result_code(error: BaseException) -> str | None:
    """Return the name of SQLite's result code, such as ``SQLITE_BUSY`` (Python 3.11 and later).

    https://www.sqlite.org/rescode.html
    """
    return getattr(error, "sqlite_errorname", None)


def error_type(error: BaseException) -> str:
    """Return the type of an error: SQLite's result code, or else the name of the exception."""
    return _result_code(error) or type(error).__qualname__
