"""Track the statements of an engine: limits, errors, and what is known about permit holders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine, ExceptionContext, event

from ..postgresql.statements import first_head, keeps_settings
from ..settings import check_limit
from ..system.clock import time
from ..turn.permit import Permit
from .endings import replace
from .limits.errors import error_of, explained
from .limits.running import Running, taken_outcome_of
from .limits.statement_limit import tell, tell_after_error, tell_before
from .pool import ServerPool, pool_of

OPTION = "statement_timeout"

_UNCHANGED = object()


def follow_statements(engine: Engine) -> None:
    """Track the statements of ``engine``, one at a time on each connection.

    This keeps the permits of checkouts up to date: the last SQL, and since when they are idle.
    Statements are tracked in the dialect, where each begins and ends whatever listeners do: an
    error of one listener may keep others from being called.
    """
    dialect = engine.dialect
    replace(
        dialect,
        do_execute=_followed(dialect.do_execute),
        do_execute_no_params=_followed_without(dialect.do_execute_no_params),
        do_executemany=_followed(dialect.do_executemany),
    )
    event.listen(engine, "handle_error", _fails)


def _followed(execute: Callable[..., None]) -> Callable[..., None]:
    # The parameters are named as in SQLAlchemy: a listener of do_execute may pass them by keyword.
    def do_execute(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        _follow(execute, context, cursor, statement, parameters)

    return do_execute


def _followed_without(execute: Callable[..., None]) -> Callable[..., None]:
    def do_execute_no_params(cursor: Any, statement: str, context: Any = None) -> None:
        _follow(execute, context, cursor, statement)

    return do_execute_no_params


def _follow(
    execute: Callable[..., None], context: Any, cursor: Any, sql: str, *parameters: Any
) -> None:
    if context is None:  # it is not known which statement this is
        execute(cursor, sql, *parameters)
        return
    connection = context.root_connection
    pool, permit = _lent_by(connection)
    if permit is None:
        execute(cursor, sql, *parameters, context)
        return
    # Looked up only once: another task may close or invalidate the connection meanwhile.
    adapted = connection.connection.dbapi_connection
    limit = pool.statement_timeout
    option = context.execution_options.get(OPTION, _UNCHANGED)
    is_other = (
        option is not _UNCHANGED
        and check_limit(OPTION, option) != limit
        # A savepoint would keep the limit. After an error, nothing may be sent but a rollback to
        # the savepoint.
        and not keeps_settings(first_head(sql))
    )
    if is_other:
        limit = option
    running = Running(pool, permit, adapted, sql, limit, pool.lock_timeout)
    before: str | None = None
    try:
        with running:
            if is_other:
                before = tell(pool, adapted, limit)
            execute(cursor, sql, *parameters, context)
    except BaseException as error:
        pool.counts.failed(sql)
        if before is not None and isinstance(error, Exception):
            tell_after_error(pool, connection, adapted, limit, before, error)
        raise
    pool.counts.ran(sql, running.outcome.seconds)
    if before is not None:
        tell_before(pool, adapted, limit, before)


def _fails(context: ExceptionContext) -> BaseException | None:
    connection, engine = context.connection, context.engine
    if engine is None or not isinstance(engine.pool, ServerPool):
        return None
    # This comes first: it may be a disconnect that SQLAlchemy did not recognize.
    error = error_of(context)
    failed = taken_outcome_of(context.original_exception)
    pool, permit = engine.pool, None
    if connection is not None:
        pool, permit = _lent_by(connection)
    if permit is not None:
        permit.idle_since = time.monotonic()
    if context.is_disconnect and connection is not None and connection.in_transaction():
        pool.counts.lost()
    if error is None:
        return None
    name = pool.name_of_server(connection)
    limit = pool.statement_timeout
    return explained(context, error, name, failed, limit=limit, writes=not pool.only_reads)


def _lent_by(connection: Connection) -> tuple[ServerPool, Permit | None]:
    """Return a connection's pool, and its permit, which is None if it is not checked out."""
    engine = connection.engine
    if connection.closed or connection.invalidated:
        return pool_of(engine, None), None  # accessing its connection would open another
    proxied = connection.connection
    pool = pool_of(engine, proxied)
    return pool, pool.permit_of(proxied)
