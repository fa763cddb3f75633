"""Follow the statements of an engine: their limits, their errors, what is known of the holder."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, final

from sqlalchemy import Connection, Engine, ExceptionContext, event

from ..settings import check_limit
from ..turn.permit import Permit
from .connections.drivers import driver_of
from .limits.blockers import Blockers
from .limits.errors import explained
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
        event.listen(engine, "before_cursor_execute", self._begins)
        event.listen(engine, "after_cursor_execute", self._ends)
        event.listen(engine, "handle_error", self._fails)

    def _begins(
        self, connection: Connection, _cursor: Any, sql: str, _parameters: Any, context: Any, _: Any
    ) -> None:
        pool, permit = connection.engine.pool, _permit(connection)
        if permit is None:
            return
        assert isinstance(pool, ServerPool)
        limit, changed = pool.statement_timeout, False
        option = context.execution_options.get(OPTION, _UNCHANGED)
        if option is not _UNCHANGED and check_limit(OPTION, option) != limit:
            limit, changed = option, True
            _set_limit(connection, "0" if limit is None else str(max(1, int(limit * 1000))))
        adapted = connection.connection.dbapi_connection
        running = Running(
            sql,
            permit,
            limit,
            partial(self._driver.abort, adapted),
            self._lock_timeout,
            Blockers(pool).find,
        )
        running.changed = changed
        permit.last_sql, permit.idle_since = sql, None
        pool.running[permit] = running
        running.begin()

    def _ends(self, connection: Connection, *_: Any) -> None:
        pool, permit = connection.engine.pool, _permit(connection)
        if permit is None:
            return
        assert isinstance(pool, ServerPool)
        permit.idle_since = time.monotonic()
        if (running := pool.end_statement(permit)) is not None:
            pool.counts.ran(running.sql, running.seconds)
            if running.changed:
                _set_limit(connection, "DEFAULT")

    def _fails(self, context: ExceptionContext) -> BaseException | None:
        connection, engine = context.connection, context.engine
        if engine is None or not isinstance(pool := engine.pool, ServerPool):
            return None
        permit = None if connection is None else _permit(connection)
        running = None
        if permit is not None:
            permit.idle_since = time.monotonic()
            running = pool.end_statement(permit)
        if running is not None:
            pool.counts.failed(running.sql)
        if context.is_disconnect and connection is not None and connection.in_transaction():
            pool.counts.lost()
        name = pool.name_of_server(None if permit is None else connection)
        error = explained(context, name, running, writes=self._writes)
        if running is not None and running.changed and not context.is_disconnect:
            assert connection is not None
            if not _in_transaction(connection):  # else the end of the transaction does it
                _set_limit(connection, "DEFAULT")
        return error


def _permit(connection: Connection) -> Permit | None:
    pool = connection.engine.pool
    if connection.closed or connection.invalidated or not isinstance(pool, ServerPool):
        return None  # to look at its connection would open another
    return pool.permit_of(connection.connection)


def _in_transaction(connection: Connection) -> bool:
    return not connection.connection.dbapi_connection.autocommit  # type: ignore[union-attr]


def _set_limit(connection: Connection, milliseconds: str) -> None:
    """Tell the server of a limit: for the transaction, or until it is told of another."""
    local = "LOCAL " if _in_transaction(connection) else ""
    connection.exec_driver_sql(
        f"SET {local}statement_timeout = {milliseconds}",
        execution_options={OPTION: _limit_of(connection)},
    )


def _limit_of(connection: Connection) -> float | None:
    pool = connection.engine.pool
    assert isinstance(pool, ServerPool)
    return pool.statement_timeout
