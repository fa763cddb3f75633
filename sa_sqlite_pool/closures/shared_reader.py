"""A reader, checked out of the pool, on which functions run one after the other in its thread.

SQLAlchemy's work at each checkout and check-in is done once for all of them, so each function must
leave the connection as it found it. A function that did more than read (used the raw connection,
changed a setting, was stopped) is the last one before the check-in, which resets the rest.
"""

from __future__ import annotations

import asyncio
import sqlite3
from threading import get_ident
from typing import Any, Protocol, final

from sqlalchemy import Engine
from sqlalchemy.pool import PoolProxiedConnection

from ..driver.executor import Executor
from ..execution.long_functions import LongFunctions
from ..pools.base import FairPool
from ..sqlite.driver_errors import dbapi
from ..sqlite.shared_hooks import watch_progress
from ..system.clock import time
from ..system.forks import rest
from ..transactions.locks import is_lock
from ..turn.snapshots import Snapshots
from .line import Call, Locked
from .thread_connection import PROGRESS_STEPS, ThreadConnection

# Seconds after which a reader is returned if a task waits in line for one, or if the engine has a
# new pool.
SLICE_SECONDS = 0.005

# Calls that have ended are reported together: this many seconds after the first of them began, when
# no other call waits, or before a call that is known to take as long. Reporting each call alone
# would wake the loop each time, which then competes for the interpreter lock.
TOGETHER_SECONDS = 0.002

# Seconds after which another reader takes over from one whose call delays others.
PATIENCE_SECONDS = 0.010

# The limit of one checkout, in seconds: only a checkout applies pool_recycle and pool_pre_ping.
_LONGEST_SECONDS = 1.0


class Calls(Protocol):
    """The calls that wait for the reader."""

    @property
    def waiting(self) -> bool:
        """True if calls wait."""

    def take(self) -> Call[Any] | None:
        """Take the next call; None if there is none."""

    def put_back(self, call: Call[Any], snapshots: Snapshots) -> None:
        """Put ``call``, which has met a gap, back at the head of the line."""

    def leave_others(self) -> None:
        """Let another reader run all other calls, since the one that was taken takes long."""

    def report_soon(self) -> None:
        """Resume the tasks of the calls that have ended, while the next one runs."""

    def leave(self) -> None:
        """End a hop: all calls that were taken have their outcomes."""


@final
class SharedReader:
    """A reader that was checked out of ``pool``, ``engine``'s pool at that time.

    ``threads`` are those in which functions run, ``long`` the functions that ran for long.
    """

    def __init__(
        self,
        calls: Calls,
        engine: Engine,
        executor: Executor,
        proxied: PoolProxiedConnection,
        threads: set[int],
        long: LongFunctions,
    ) -> None:
        self._calls = calls
        self._engine = engine
        pool = engine.pool
        assert isinstance(pool, FairPool)
        self._pool = pool
        self._executor = executor
        self._proxied = proxied
        self._threads = threads
        self._long = long
        permit = executor.transaction.permit
        assert permit is not None
        permit.work_for(None)  # not for the leader, which only waits
        self._permit = permit
        self._look_at = time.monotonic() + SLICE_SECONDS
        self._ends_at = self._look_at + _LONGEST_SECONDS
        self._clean = True
        self._call: Call[Any] | None = None  # taken last
        self._here: ThreadConnection | None = None  # of the function that runs

    def may_stay(self, now: float) -> bool:
        """Return whether it may run further calls at ``now``. Any thread may call this."""
        if not self._clean or now < self._look_at:
            return self._clean
        if self._pool.waiting or self._engine.pool is not self._pool or now >= self._ends_at:
            return False
        self._look_at = now + SLICE_SECONDS
        return True

    # -- in the thread --------------------------------------------------------------------------

    def serve(self, sqlite: sqlite3.Connection) -> None:
        """Run the calls in line: a job for the connection's thread."""
        thread = get_ident()
        self._threads.add(thread)
        try:
            self._executor.policy.other_work_begins(sqlite)
            watch_progress(sqlite, self._look, PROGRESS_STEPS)
            self._run_calls(sqlite)
            if self._executor.worker.open_connection is not None:  # no function has closed it
                watch_progress(sqlite, None, 0)
        except BaseException as error:
            self._clean = False
            if self._call is not None:
                self._call.lose(error)
            raise
        finally:
            self._threads.discard(thread)
            self._calls.leave()

    def _run_calls(self, sqlite: sqlite3.Connection) -> None:
        calls, long = self._calls, self._long
        # One cursor for all BEGINs and ROLLBACKs: Connection.execute() would create one each time.
        cursor = sqlite.cursor()
        now, unreported_since, number, unreported = time.monotonic(), 0.0, 0, False
        while self.may_stay(now) and (call := calls.take()) is not None:
            expected = long.expected(call.fn) if long.known else 0.0
            if expected >= PATIENCE_SECONDS:
                calls.leave_others()
            if unreported and (
                not calls.waiting or now - unreported_since >= TOGETHER_SECONDS or expected
            ):
                calls.report_soon()
                unreported = False
            if not unreported:
                unreported_since = now
            if not self._run(sqlite, cursor, call):
                break
            began, now = now, time.monotonic()
            if long.known or now - began >= TOGETHER_SECONDS:
                long.note(call.fn, now - began)
            unreported = True
            number += 1
            if rest.forking:
                self._executor.worker.between_steps()
        if self._executor.worker.open_connection is not None:
            cursor.close()
        self._executor.counts.ran_functions(number)

    def _look(self) -> bool:
        """Return whether to stop the running statement. SQLite calls this."""
        return self._here is not None and self._here.look()

    def _run(self, sqlite: sqlite3.Connection, cursor: sqlite3.Cursor, call: Call[Any]) -> bool:
        """Run ``call``; return False if it could not begin, because of a gap."""
        executor, permit, self._call = self._executor, self._permit, call
        here = self._here = ThreadConnection(sqlite, executor, self._proxied, caller=call)
        permit.work_for(call.task)
        permit.last_sql, permit.idle_since = "BEGIN", None
        permit.since = call.taken_at or 0.0
        rules, snapshot = executor.rules, None
        try:
            if call.cancelled or call.get_loop().is_closed():
                raise asyncio.CancelledError
            if rules.enters_snapshots:
                snapshot = rules.snapshots.begin(permit, end_early=here.end_early)
                if snapshot is None:
                    self._clean = False
                    self._calls.put_back(call, rules.snapshots)
                    return False
            cursor.execute("BEGIN")
            if rules.commits_wait:
                self._lock(sqlite)
            call.context.run(call.run, here)
        except BaseException as error:  # raised again where the call is awaited
            call.fail(error)
        finally:
            self._end(sqlite, cursor, here, call)
            if snapshot is not None:
                rules.snapshots.end(snapshot)
        return True

    def _lock(self, sqlite: sqlite3.Connection) -> None:
        """Acquire the lock that the first read needs without WAL, and that others may hold."""
        try:
            with self._executor.authorizer.aside():
                sqlite.execute("PRAGMA schema_version").fetchone()
        except dbapi.OperationalError as error:
            if is_lock(error):
                raise Locked(error, self._executor.rules) from error
            raise

    def _end(
        self,
        sqlite: sqlite3.Connection,
        cursor: sqlite3.Cursor,
        here: ThreadConnection,
        call: Call[Any],
    ) -> None:
        """End the transaction; note whether the connection is in the same state as before."""
        executor = self._executor
        try:
            here.end()
            closed = here.touched and executor.worker.open_connection is None  # by the function
            if not closed and sqlite.in_transaction:
                cursor.execute("ROLLBACK")
                executor.counts.reads += 1
            if here.touched and not closed:
                sqlite.isolation_level = None  # the function may have set another level
            self._permit.work_for(None)
        except BaseException as error:
            call.fail(error)
            self._clean = False
        executor.transaction.lost_by = self._here = None
        if here.touched or call.cancelled or executor.worker.ended is not None:
            self._clean = False
            executor.transaction.cancelled = call.let_go
