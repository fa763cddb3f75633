"""PostgreSQL's errors, as the errors that applications know from SQLite, with advice."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ExceptionContext
from sqlalchemy.exc import DBAPIError, OperationalError

from ...errors import CommitUnknownError, ForbiddenWriteError, StatementTimeout, WriteTimeout
from ...postgresql.sqlstate import (
    ACTIVE_TRANSACTION,
    DEADLOCK_DETECTED,
    FAILED_TRANSACTION,
    QUERY_CANCELED,
    READ_ONLY_TRANSACTION,
    SERIALIZATION_FAILURE,
    leaves_commit_unknown,
    sqlstate_of,
)
from ...sessions.refusals import USE_A_WRITER, reason_of
from ...sqlite.tokens import words
from ...turn.permit import shorten
from ..drivers.choosing import driver_of
from .running import Outcome

_LIMIT = "statement_timeout"
_ROLLED_BACK = "its transaction or savepoint must be"

_AT_COMMIT = "sa_sqlite_pool_at_commit"

_ADVICE = {
    SERIALIZATION_FAILURE: "the transaction conflicted with one that ran at the same time, and "
    "was aborted; begin it again, as run_write() does automatically",
    DEADLOCK_DETECTED: "two transactions waited for each other, and this one was aborted; begin it "
    "again, as run_write() does automatically, and lock rows in the same order everywhere",
    FAILED_TRANSACTION: "an error in this transaction was caught, and PostgreSQL has aborted all "
    "of it: nothing is written; put begin_nested() around the part that may fail, or let the error "
    "propagate",
}

# https://www.postgresql.org/docs/current/hot-standby.html#HOT-STANDBY-CONFLICT
_OF_READS = "read again, as run_read() does automatically"
_ADVICE_FOR_READS = {
    SERIALIZATION_FAILURE: "the server has cancelled the read: on a replica, because it replays "
    f"what the primary has removed, or locked, meanwhile; {_OF_READS}; if it happens often, raise "
    "max_standby_streaming_delay of the replica, or set hot_standby_feedback = on there",
    DEADLOCK_DETECTED: f"the read and another transaction, or what a replica replays, waited for "
    f"each other, and the read was cancelled; {_OF_READS}",
}

_SET_TOO_LATE = (
    'it must come before all other statements of the transaction, and with writes="in turn" the '
    "first statement takes the turn: leave it out (READ COMMITTED is right in the turn), or "
    "set it as an option of the connection or the session, such as "
    'connection(execution_options={"isolation_level": "SERIALIZABLE"}), with '
    'writes="serializable"; postgresql_readonly and postgresql_deferrable are options, too'
)
_OUTSIDE = (
    "execute it on a connection of db.writer_engine after "
    'await connection.execution_options(isolation_level="AUTOCOMMIT")'
)


def mark_at_commit(error: Exception) -> None:
    """Mark an error of a driver as raised by COMMIT."""
    vars(error)[_AT_COMMIT] = True


def error_of(context: ExceptionContext) -> DBAPIError | None:
    """Return SQLAlchemy's error of ``context``, None if it is not a driver's error.

    SQLAlchemy would pass on unchanged what asyncpg raises while the rows of a stream are fetched.
    """
    error, origin = context.sqlalchemy_exception, context.original_exception
    if isinstance(error, DBAPIError):
        return error
    connection, engine, execution = context.connection, context.engine, context.execution_context
    if execution is None or not isinstance(origin, Exception) or engine is None:
        return None
    if connection is None or connection.closed or connection.invalidated:
        return None
    adapted: Any = connection.connection.dbapi_connection
    translated: Any = driver_of(context.dialect).translated(adapted, origin)
    if translated is None:
        return None
    context.is_disconnect = context.dialect.is_disconnect(translated, adapted, None)
    dbapi: Any = context.dialect.loaded_dbapi
    found = DBAPIError.instance(
        *(execution.statement, None, translated, dbapi.Error),
        hide_parameters=engine.hide_parameters,
        connection_invalidated=context.is_disconnect,
        dialect=context.dialect,
    )
    assert isinstance(found, DBAPIError)
    return found


def explained(
    context: ExceptionContext,
    error: DBAPIError,
    server: str,
    failed: Outcome | None,
    *,
    limit: float | None,
    writes: bool,
) -> BaseException | None:
    """Return the error to raise instead of the one of ``context``; None to raise that one.

    :param error: the error that :func:`error_of` has returned
    :param server: the name of the server, for messages
    :param failed: the statement that failed, None if it is not known
    :param limit: the database's ``statement_timeout`` in seconds, None for no limit
    :param writes: whether the engine is one that writes
    """
    state = sqlstate_of(error) or ""
    is_unknown = context.is_disconnect or leaves_commit_unknown(state)
    if is_unknown and hasattr(context.original_exception, _AT_COMMIT):
        return _commit_unknown(server, error)
    if failed is not None and failed.was_given_up:
        what = "the server did not respond, so the connection was closed, and its transaction is"
        return _took_too_long(server, failed.sql, failed.limit, what)
    _advise(context, error, state, writes=writes)
    found = None
    if not context.is_disconnect:
        found = _by_state(context, error, server, failed, limit, writes)
    return error if found is None and error is not context.sqlalchemy_exception else found


def _advise(context: ExceptionContext, error: DBAPIError, state: str, *, writes: bool) -> None:
    """Add advice to an error, unless another engine's handler has done so."""
    advice = (_ADVICE if writes else _ADVICE_FOR_READS).get(state)
    if state == ACTIVE_TRANSACTION:
        is_set = next(words(context.statement or ""), "") == "SET"
        advice = _SET_TOO_LATE if is_set else _OUTSIDE
    if advice is not None and not error.detail:
        error.add_detail(advice)


def _by_state(
    context: ExceptionContext,
    error: DBAPIError,
    server: str,
    failed: Outcome | None,
    limit: float | None,
    writes: bool,
) -> BaseException | None:
    state = sqlstate_of(error)
    if state == READ_ONLY_TRANSACTION:
        return _forbidden(context, server, error, writes=writes)
    if state == QUERY_CANCELED and failed is not None:
        return _cancelled(server, failed, error)
    if state == QUERY_CANCELED and context.execution_context is not None and _is_limit(error):
        sql = context.execution_context.statement or ""  # while rows are fetched
        return _took_too_long(server, sql, limit, _ROLLED_BACK)
    return None


def _commit_unknown(server: str, error: DBAPIError) -> CommitUnknownError:
    return CommitUnknownError(
        f"the connection to {server} was lost before the answer to COMMIT arrived: whether the "
        "transaction was committed is unknown; look for what it wrote before running it again, "
        "or give it its own key in a unique column, so that a second run fails",
        error.orig,
    )


def _forbidden(
    context: ExceptionContext, server: str, error: DBAPIError, *, writes: bool
) -> OperationalError:
    sql = context.statement
    if sql is None and context.execution_context is not None:  # while rows are fetched
        sql = context.execution_context.statement
    reason = reason_of(error.orig)
    if writes:
        what = "accepts no writes: it is a replica, or was made read-only; use the primary's URL"
        message = f"{server} {what} ({reason})"
    else:
        message = (
            f"a reader of {server} cannot change a database: {shorten(sql or '')} ({reason}); "
            f"{USE_A_WRITER}"
        )
    forbidden = ForbiddenWriteError(message)
    vars(forbidden)["sqlstate"] = READ_ONLY_TRANSACTION
    parameters: Any = context.parameters
    return OperationalError(sql, parameters, forbidden, hide_parameters=error.hide_parameters)


def _cancelled(server: str, failed: Outcome, error: DBAPIError) -> BaseException | None:
    """Return the error for a statement that was cancelled on request, or by the server itself."""
    if failed.blocked_by is not None:
        return WriteTimeout(
            f"waited {failed.seconds_blocked:.2f} s for a lock on {server}; it is held by "
            f"{failed.blocked_by}; the statement was stopped, and {_ROLLED_BACK} rolled "
            f"back: {shorten(failed.sql)}; shorten the transaction there or raise "
            "write_timeout",
            error.orig,
        )
    if failed.timed_out or _is_limit(error):
        limit = failed.limit if failed.timed_out else None  # another limit, set by the application
        return _took_too_long(server, failed.sql, limit, _ROLLED_BACK)
    return None


def _is_limit(error: DBAPIError) -> bool:
    return "statement timeout" in str(error.orig)


def _took_too_long(server: str, sql: str, limit: float | None, what: str) -> StatementTimeout:
    whose = "the statement_timeout of the server" if limit is None else f"{_LIMIT}={limit} s"
    return StatementTimeout(
        f"a statement on {server} was stopped after {whose}: {shorten(sql)}; {what} rolled back; "
        f"shorten it, or raise {_LIMIT} (of the database, or in execution_options of this "
        "statement)"
    )
