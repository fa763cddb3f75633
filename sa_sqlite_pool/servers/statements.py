"""Follow the statements of an engine: the holder of a permit is described by them."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Connection, Engine, ExceptionContext, event

from ..turn.permit import Permit
from .pool import ServerPool


def follow_statements(engine: Engine) -> None:
    """Keep the permits of ``engine``'s checkouts up to date: the last SQL, and idle since when."""
    event.listen(engine, "before_cursor_execute", _begins)
    event.listen(engine, "after_cursor_execute", _ends)
    event.listen(engine, "handle_error", _fails)


def _begins(connection: Connection, _cursor: Any, sql: str, *_: Any) -> None:
    permit = _permit(connection)
    if permit is not None:
        permit.last_sql, permit.idle_since = sql, None


def _ends(connection: Connection, *_: Any) -> None:
    permit = _permit(connection)
    if permit is not None:
        permit.idle_since = time.monotonic()


def _fails(context: ExceptionContext) -> None:
    if context.connection is not None:
        _ends(context.connection)


def _permit(connection: Connection) -> Permit | None:
    pool = connection.engine.pool
    if connection.closed or connection.invalidated or not isinstance(pool, ServerPool):
        return None  # to look at its connection would open another
    return pool.permit_of(connection.connection)
