"""COMMIT: what is known about its outcome, and its position in the primary's log.

The position is recorded for the ``fresh()`` block around the task.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import Engine

from ..freshness import BEYOND_ALL, Seen, seen_by
from ..postgresql.sqlstate import FAILED_TRANSACTION, sqlstate_of
from ..reporting.events import CommitCancelled, log
from ..system.clock import time
from .activity.writers import WritersOut, has_more, note_known, note_other_work
from .connections.positions import position_of_commit
from .connections.records import record_of
from .connections.server import PRIMARY
from .drivers.answers import SECONDS_TO_ANSWER, AnswerLimit
from .drivers.choosing import driver_of
from .drivers.interface import Driver
from .endings import replace
from .limits.errors import mark_at_commit
from .pool import ServerPool, pool_of
from .retries import note_committed


def note_commits(engine: Engine, owner: object, out: WritersOut) -> None:
    """Make the dialect of a writer's ``engine`` query the log position of each COMMIT.

    It does so only within a ``fresh()`` block of ``owner``. The query follows directly after COMMIT
    has returned, on the same connection, so it does not depend on listeners of the application.

    Other work on a connection is recorded, too: see :func:`note_other_work`. After a COMMIT there
    is none, unless something has been done since.
    """
    dialect, driver = engine.dialect, driver_of(engine.dialect)
    commit, rollback = dialect.do_commit, dialect.do_rollback

    def do_commit(proxied: Any) -> None:
        pool, seen = pool_of(engine, proxied), seen_by(owner)
        try:
            _commit(pool, driver, commit, proxied)
        except BaseException as error:
            if seen is not None and sqlstate_of(error) != FAILED_TRANSACTION:
                seen.note_position(BEYOND_ALL, {})  # it may be committed
            raise
        note_committed(owner)
        if seen is not None:
            _note_commit(pool, driver, seen, proxied)
            note_known(record_of(proxied), driver)

    def do_rollback(proxied: Any) -> None:
        seen, connection = seen_by(owner), getattr(proxied, "dbapi_connection", None)
        if seen is None or connection is None:
            rollback(proxied)
            return
        record = record_of(proxied)
        has_read = driver.in_transaction(connection) or has_more(record, driver)
        rollback(proxied)
        if has_read:
            seen.note_read(PRIMARY)
        note_known(record, driver)

    replace(dialect, do_commit=do_commit, do_rollback=do_rollback)
    note_other_work(engine, owner, out)


def _commit(pool: ServerPool, driver: Driver, commit: Any, proxied: Any) -> None:
    connection = proxied.dbapi_connection
    if not driver.in_transaction(connection):
        commit(proxied)
        return
    began, limit = time.monotonic(), pool.statement_timeout
    is_open = not driver.is_broken(connection)  # else the server has rolled back, which is known
    try:
        with AnswerLimit(driver, connection, None if limit is None else limit + SECONDS_TO_ANSWER):
            driver.commit(connection, partial(commit, proxied))
    except Exception as error:
        if is_open:
            mark_at_commit(error)
        if not driver.is_broken(connection):
            pool.counts.rolled_back()
        raise
    except GeneratorExit:  # its loop is gone
        raise
    except BaseException:
        _log_cancelled(
            pool,
            "a COMMIT on %s was cancelled before its answer arrived: whether it was committed is "
            "unknown; look for what it wrote before writing it again",
        )
        raise
    pool.counts.committed(time.monotonic() - began)


def _note_commit(pool: ServerPool, driver: Driver, seen: Seen, proxied: Any) -> None:
    covered, connection = dict(seen.read_from), proxied.dbapi_connection
    limit = AnswerLimit(driver, connection)
    try:
        with limit:
            position = position_of_commit(driver, connection)
    except Exception as error:  # it is committed, and raising would claim the opposite
        position = BEYOND_ALL
        pool.give_up(proxied, error, silent=limit.passed)
    except BaseException as error:
        seen.note_position(BEYOND_ALL, covered)
        if not isinstance(error, GeneratorExit):
            _log_cancelled(
                pool,
                "the answer to a COMMIT on %s had arrived when its task was cancelled: it is "
                "committed, although after_commit listeners are not called; do not write it "
                "again",
            )
        raise
    else:
        pool.primary.note_position(position)
    seen.note_position(position, covered)


def _log_cancelled(pool: ServerPool, message: str) -> None:
    server = pool.primary.name
    log(CommitCancelled(database=server, server=server), message, server)
