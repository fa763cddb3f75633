"""The write turn between processes: an advisory lock of PostgreSQL.

The first statement of each transaction that writes acquires it, and PostgreSQL releases it at
COMMIT and ROLLBACK, or when the connection is gone. Under READ COMMITTED, each later statement has
its own snapshot, and thus sees what the previous holder has committed.
https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine

from ..errors import WriteTimeout
from ..postgresql.sqlstate import LOCK_NOT_AVAILABLE, sqlstate_of
from ..system.clock import time
from ..turn.waits import WaitedFor
from .drivers.answers import SECONDS_TO_ANSWER, AnswerLimit
from .drivers.interface import row_of
from .endings import replace
from .limits.blockers import HOLDER
from .pool import pool_of
from .primary import PrimaryPool
from .rules.levels import assert_may_take_turns

TURN_KEY = int.from_bytes(b"sa_sqlit", "big")
"""The key of the lock, in the database to which the transactions write."""

# It does not overtake: pg_try_… also fails if another process waits (LockAcquireExtended() in
# PostgreSQL's src/backend/storage/lmgr/lock.c checks the waiters' modes).
TRY = (
    f"SELECT pg_try_advisory_xact_lock({TURN_KEY}), "
    "current_setting('lock_timeout'), current_setting('statement_timeout')"
)
WAIT = f"SELECT pg_advisory_xact_lock({TURN_KEY})"

# For the rest of the transaction. The limit of statements does not apply to the wait before them.
LIMITS = (
    "SELECT set_config('lock_timeout', '{}', true), set_config('statement_timeout', '{}', true)"
)

_HOLDER = f"""
SELECT {HOLDER}
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND l.classid = {TURN_KEY >> 32} AND l.objid = {TURN_KEY & 0xFFFFFFFF}
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""  # noqa: S608


def take_turns(engine: Engine) -> None:
    """Make transactions of ``engine`` acquire the turn first; they wait for it in BEGIN.

    They wait for the rest of the pool's time-out, then raise
    :class:`~sa_sqlite_pool.WriteTimeout`, which names the process that holds it. Any isolation
    level but READ COMMITTED raises :class:`~sa_sqlite_pool.ConfigurationError` before that.
    """
    begin = engine.dialect.do_begin

    def do_begin(proxied: Any) -> None:
        if not proxied.dbapi_connection.autocommit:
            assert_may_take_turns(proxied.dbapi_connection)
        begin(proxied)
        if proxied.dbapi_connection.autocommit:
            return  # each statement is its own transaction, whose end releases the lock
        pool = pool_of(engine, proxied)
        assert isinstance(pool, PrimaryPool)
        permit = pool.permit_of(proxied)
        waited = 0.0
        if permit is not None:  # the checkout's wait counts towards its first transaction
            waited, permit.seconds_waited = permit.seconds_waited, 0.0
        seconds = max(0.0, pool.timeout - waited)
        limit = AnswerLimit(pool.driver, proxied.dbapi_connection, seconds + SECONDS_TO_ANSWER)
        if permit is not None:
            permit.idle_since = None  # it waits for another process
        try:
            with limit:
                _take(engine, pool, proxied, seconds)
        except Exception as error:
            if limit.passed:
                raise _without_an_answer(pool, error) from error
            raise
        finally:
            if permit is not None:
                permit.idle_since = time.monotonic()

    replace(engine.dialect, do_begin=do_begin)


def _take(engine: Engine, pool: PrimaryPool, proxied: Any, seconds: float) -> None:
    taken, *limits_before = row_of(proxied, TRY)
    if taken:
        pool.counts.process_waits.at_once += 1
        return
    # 0 would mean no limit.
    row_of(proxied, LIMITS.format(max(1, int(seconds * 1000)), 0))
    began, waits = time.monotonic(), pool.counts.process_waits
    try:
        what, server = WaitedFor.PROCESS, pool.primary.name
        with pool.wait_watch.block(what, server, None, lambda: "another process"):
            row_of(proxied, WAIT)
    except Exception as error:
        in_time = sqlstate_of(error) != LOCK_NOT_AVAILABLE
        waits.ended(time.monotonic() - began, timed_out=not in_time, cancelled=in_time)
        if in_time:
            raise
        engine.dialect.do_rollback(proxied)
        raise _not_in_time(pool, proxied, error) from error
    except BaseException:
        waits.ended(time.monotonic() - began, cancelled=True)
        raise
    waits.ended(time.monotonic() - began)
    row_of(proxied, LIMITS.format(*limits_before))


def _not_in_time(pool: PrimaryPool, proxied: Any, error: Exception) -> WriteTimeout:
    holder = "another process, which has ended since"
    if (connection := proxied.dbapi_connection) is not None:
        try:
            with AnswerLimit(pool.driver, connection):
                rows = pool.driver.rows(connection, _HOLDER)
            holder = "; ".join(row[0] for row in rows) or holder
        except Exception as unanswered:
            holder = f"a process that the server does not name ({unanswered})"
    return WriteTimeout(
        f"waited {pool.timeout:.2f} s to write to {pool.primary.name}; the turn is held by "
        f"{holder}; {pool.primary.line.waiting} more of this process waiting in line; shorten the "
        "transaction there or raise write_timeout",
        error,
    )


def _without_an_answer(pool: PrimaryPool, error: Exception) -> WriteTimeout:
    return WriteTimeout(
        f"waited {pool.timeout:.2f} s to write to {pool.primary.name}, which does not respond; "
        f"{pool.primary.line.waiting} more of this process waiting in line; check the server",
        error,
    )
