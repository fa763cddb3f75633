"""Follow the statements of an engine: their limits, their errors, what is known of the holder."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, final

from sqlalchemy import Connection, Engine, ExceptionContext, event

from ..settings import check_limit
from ..transactions.locks import write_patience
from ..turn.permit import Permit
from .connections.drivers import driver_of
from .limits.blockers import Blockers
from .limits.errors import error_of, explained
from .limits.of_one import LimitsOfOne
from .limits.running import Running
from .pool import ServerPool

OPTION = "statement_timeout"

_UNCHANGED = object()


@final
class FollowedStatements:
    """The statements of an engine, one at a time on each connection.

    They keep the permits of checkouts up to date: the last SQL, and idle since when.

    :param lock_timeout: seconds that a statement waits for a lock, None for no limit
    :param writes: whether it is an engine that writes
    """

    def __init__(self, engine: Engine, lock_timeout: float | None, *, writes: bool) -> None:
        self._driver = driver_of(engine.dialect)
        self._lock_timeout = lock_timeout
        self._writes = writes
        self._limits = LimitsOfOne(engine.dialect, writes=writes)
        event.listen(engine, "before_cursor_execute", self._begins)
        event.listen(engine, "after_cursor_execute", self._ends)
        event.listen(engine, "handle_error", self._fails)

    def _begins(
        self, connection: Connection, _cursor: Any, sql: str, _parameters: Any, context: Any, _: Any
    ) -> None:
        pool, permit = _lent_by(connection)
        if permit is None:
            return
        limit = pool.statement_timeout
        option = context.execution_options.get(OPTION, _UNCHANGED)
        is_other = option is not _UNCHANGED and check_limit(OPTION, option) != limit
        running = Running(
            *(sql, context, permit, option if is_other else limit),
            partial(self._driver.abort, connection.connection.dbapi_connection),
            self._longest_wait(),
            Blockers(pool).find,
        )
        pool.lent.begin(running)
        if is_other:
            self._limits.tell(connection, running)

    def _longest_wait(self) -> float | None:
        patience = write_patience.get()
        return self._lock_timeout if patience is None or not self._writes else patience

    def _ends(
        self,
        connection: Connection,
        _cursor: Any,
        _sql: str,
        _parameters: Any,
        context: Any,
        _: Any,
    ) -> None:
        pool, permit = _lent_by(connection)
        if permit is None:
            return
        if (running := pool.lent.end(permit, context)) is not None:
            pool.counts.ran(running.sql, running.seconds)
            if running.before is not None:
                self._limits.tell_before(connection, running)

    def _fails(self, context: ExceptionContext) -> BaseException | None:
        connection, engine = context.connection, context.engine
        if engine is None or not isinstance(engine.pool, ServerPool):
            return None
        # First: it may be a disconnect, which SQLAlchemy has not known of.
        error = error_of(context)
        pool, permit, running = engine.pool, None, None
        if connection is not None:
            pool, permit = _lent_by(connection)
        if permit is not None:
            permit.idle_since = time.monotonic()
            running = pool.lent.end(permit, context.execution_context)
        if running is not None:
            pool.counts.failed(running.sql)
        if context.is_disconnect and connection is not None and connection.in_transaction():
            pool.counts.lost()
        name = pool.name_of_server(None if permit is None else connection)
        raised = (
            None if error is None else explained(context, error, name, running, writes=self._writes)
        )
        if running is not None and running.before is not None and not context.is_disconnect:
            assert connection is not None
            self._limits.after_error(connection, running)
        return raised


def _lent_by(connection: Connection) -> tuple[ServerPool, Permit | None]:
    """Return the pool that a connection is of, and its permit; None if it is not checked out."""
    pool = connection.engine.pool
    assert isinstance(pool, ServerPool)
    if connection.closed or connection.invalidated:
        return pool, None  # to look at its connection would open another
    proxied = connection.connection
    # That of the engine may have taken its place since: dispose(close=False).
    own = getattr(proxied, "_pool", pool)
    return own, own.permit_of(proxied)
