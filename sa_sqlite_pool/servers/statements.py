"""Follow the statements of an engine: their limits, their errors, what is known of the holder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from sqlalchemy import Connection, Engine, ExceptionContext, event

from ..postgresql.statements import first_head, keeps_settings
from ..settings import check_limit
from ..system.clock import time
from ..transactions.locks import write_patience
from ..turn.permit import Permit
from .endings import replace
from .limits.errors import error_of, explained
from .limits.running import Running, taken_outcome_of
from .limits.statement_limit import LimitsOfOne
from .pool import ServerPool, pool_of

OPTION = "statement_timeout"

_UNCHANGED = object()


@final
class FollowedStatements:
    """The statements of an engine, one at a time on each connection.

    They keep the permits of checkouts up to date: the last SQL, and idle since when. They are
    followed in the dialect, where one begins and ends whatever listeners do: an error of a listener
    may keep others from being called.

    :param lock_timeout: seconds that a statement waits for a lock, None for no limit
    :param writes: whether it is an engine that writes
    """

    def __init__(self, engine: Engine, lock_timeout: float | None, *, writes: bool) -> None:
        dialect = engine.dialect
        self._lock_timeout = lock_timeout
        self._writes = writes
        self._limits = LimitsOfOne(dialect, writes=writes)
        replace(
            dialect,
            do_execute=self._followed(dialect.do_execute),
            do_execute_no_params=self._followed_without(dialect.do_execute_no_params),
            do_executemany=self._followed(dialect.do_executemany),
        )
        event.listen(engine, "handle_error", self._fails)

    def _followed(self, execute: Callable[..., None]) -> Callable[..., None]:
        # With the names of SQLAlchemy's: a listener of do_execute may call it in its own way.
        def do_execute(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
            self._follow(execute, context, cursor, statement, parameters)

        return do_execute

    def _followed_without(self, execute: Callable[..., None]) -> Callable[..., None]:
        def do_execute_no_params(cursor: Any, statement: str, context: Any = None) -> None:
            self._follow(execute, context, cursor, statement)

        return do_execute_no_params

    def _follow(
        self, execute: Callable[..., None], context: Any, cursor: Any, sql: str, *parameters: Any
    ) -> None:
        if context is None:  # it is not known what is executed
            execute(cursor, sql, *parameters)
            return
        connection = context.root_connection
        pool, permit = _lent_by(connection)
        if permit is None:
            execute(cursor, sql, *parameters, context)
            return
        # Not asked for again: another task may close or invalidate it meanwhile.
        adapted = connection.connection.dbapi_connection
        limit = pool.statement_timeout
        option = context.execution_options.get(OPTION, _UNCHANGED)
        is_other = (
            option is not _UNCHANGED
            and check_limit(OPTION, option) != limit
            # A savepoint would keep the limit. And after an error nothing else may be sent than
            # what goes back to it.
            and not keeps_settings(first_head(sql))
        )
        if is_other:
            limit = option
        running = Running(pool, permit, adapted, sql, limit, self._longest_wait())
        before: str | None = None
        try:
            with running:
                if is_other:
                    before = self._limits.tell(adapted, limit)
                execute(cursor, sql, *parameters, context)
        except BaseException as error:
            pool.counts.failed(sql)
            if before is not None and isinstance(error, Exception):
                self._limits.after_error(connection, adapted, limit, before, error)
            raise
        pool.counts.ran(sql, running.outcome.seconds)
        if before is not None:
            self._limits.tell_before(adapted, limit, before)

    def _longest_wait(self) -> float | None:
        patience = write_patience.get()
        return self._lock_timeout if patience is None or not self._writes else patience

    def _fails(self, context: ExceptionContext) -> BaseException | None:
        connection, engine = context.connection, context.engine
        if engine is None or not isinstance(engine.pool, ServerPool):
            return None
        # First: it may be a disconnect, which SQLAlchemy has not known of.
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
        name = pool.name_of_server(None if permit is None else connection)
        limit = pool.statement_timeout
        return explained(context, error, name, failed, limit=limit, writes=self._writes)


def _lent_by(connection: Connection) -> tuple[ServerPool, Permit | None]:
    """Return the pool that a connection is of, and its permit; None if it is not checked out."""
    engine = connection.engine
    if connection.closed or connection.invalidated:
        return pool_of(engine, None), None  # to look at its connection would open another
    proxied = connection.connection
    pool = pool_of(engine, proxied)
    return pool, pool.permit_of(proxied)
