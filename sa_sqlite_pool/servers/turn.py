"""The write turn between processes: an advisory lock of PostgreSQL.

It is taken as the first statement of each transaction that writes, and PostgreSQL releases it at
COMMIT and ROLLBACK, or when the connection is gone. Under READ COMMITTED each later statement has a
snapshot of its own, so that it sees what the holder before has committed.
https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Engine

from ..errors import WriteTimeout
from ..postgresql.sqlstate import LOCK_NOT_AVAILABLE, sqlstate_of
from .primary import PrimaryPool

TURN_KEY = int.from_bytes(b"sa_sqlit", "big")
"""The key of the lock, in the database that is written to."""

# It does not overtake: pg_try_… fails where another process waits, too (LockAcquireExtended() in
# PostgreSQL's src/backend/storage/lmgr/lock.c looks at the waiters' modes).
_TRY = f"SELECT pg_try_advisory_xact_lock({TURN_KEY}), current_setting('lock_timeout')"
_WAIT = f"SELECT pg_advisory_xact_lock({TURN_KEY})"

_HOLDER = rf"""
SELECT concat_ws(', ',
    'PID ' || a.pid || coalesce(' of ' || nullif(a.application_name, ''), '')
        || coalesce(' on ' || host(a.client_addr), ''),
    'in this transaction for ' || round(extract(epoch FROM clock_timestamp() - a.xact_start), 1)
        || ' s',
    a.state,
    'last SQL: ' || left(regexp_replace(a.query, '\s+', ' ', 'g'), 120))
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND l.classid = {TURN_KEY >> 32} AND l.objid = {TURN_KEY & 0xFFFFFFFF}
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""  # noqa: S608


class _Tried(NamedTuple):
    taken: bool
    lock_timeout: str


def take_turns(engine: Engine) -> None:
    """Have the dialect of ``engine`` take the turn as the first statement of each transaction.

    It waits for the rest of the pool's time-out, then raises :class:`~sa_sqlite_pool.WriteTimeout`,
    which names the process that has it.
    """
    dialect = engine.dialect
    do_begin = dialect.do_begin

    # Not a listener of "begin": an error there is not SQLAlchemy's, and leaves its connection
    # without transactions from then on (Connection._begin_impl() in sqlalchemy/engine/base.py).
    def begin(proxied: Any) -> None:
        do_begin(proxied)
        pool = engine.pool
        assert isinstance(pool, PrimaryPool)
        if not proxied.dbapi_connection.autocommit:
            _take(pool, proxied)
        # else each statement is a transaction of its own, at whose end the lock would be gone

    dialect.do_begin = begin  # type: ignore[assignment,method-assign]


def _take(pool: PrimaryPool, proxied: Any) -> None:
    tried = _Tried(*_row(proxied, _TRY))
    if tried.taken:
        return
    permit = pool.permit_of(proxied)
    seconds = pool.seconds_left(0.0 if permit is None else permit.seconds_waited)
    # 0 would be no limit.
    _execute(proxied, f"SET LOCAL lock_timeout = {max(1, int(seconds * 1000))}")
    try:
        _row(proxied, _WAIT)
    except Exception as error:
        if sqlstate_of(error) != LOCK_NOT_AVAILABLE:
            raise
        proxied.rollback()
        raise _not_in_time(pool, proxied, error) from error
    _execute(proxied, f"SET LOCAL lock_timeout = '{tried.lock_timeout}'")


def _not_in_time(pool: PrimaryPool, proxied: Any, error: Exception) -> WriteTimeout:
    holder = pool.ask(proxied.dbapi_connection, _HOLDER) or "another process, which has ended since"
    return WriteTimeout(
        f"waited {pool.timeout:.2f} s to write to {pool.primary.name}; the turn is held by "
        f"{holder}; {pool.primary.line.waiting} more of this process in line; shorten the "
        "transaction there or raise write_timeout",
        error,
    )


def _row(proxied: Any, sql: str) -> Any:
    cursor = proxied.cursor()
    try:
        cursor.execute(sql)
        return cursor.fetchone()
    finally:
        cursor.close()


def _execute(proxied: Any, sql: str) -> None:
    cursor = proxied.cursor()
    try:
        cursor.execute(sql)
    finally:
        cursor.close()
