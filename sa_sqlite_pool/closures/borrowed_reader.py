"""A reader, borrowed from the pool, on which functions run one after the other in its thread.

SQLAlchemy's work at each checkout and check-in is done once for all of them, so each function must
leave the connection as it found it. A function that did more than read (used the raw connection,
changed a setting, was stopped) is the last one before the check-in, which resets the rest.
"""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import Any, Protocol, final

from sqlalchemy import Engine
from sqlalchemy.pool import PoolProxiedConnection

from ..driver.executor import Executor
from ..execution.jobs import Job
from ..execution.long_functions import LongFunctions
from ..pools.base import FairPool
from ..sqlite.driver_errors import dbapi
from ..sqlite.shared_hooks import watch_progress
from ..system.clock import time
from ..system.forks import rest
from ..transactions.locks import NotBegun, is_lock
from ..transactions.rules import Rules
from ..turn.snapshots import Snapshots
from .read_call import ReadCall
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

# The limit of one borrowing, in seconds: only a checkout applies pool_recycle and pool_pre_ping.
_LONGEST_SECONDS = 1.0


class Locked(NotBegun):
    """A lock has blocked a read, on the connection with ``rules``."""

    def __init__(self, error: Exception, rules: Rules) -> None:
        super().__init__(error)
        self.rules = rules


class Line(Protocol):
    """The calls that one event loop has to run."""

    long: LongFunctions
    threads: set[int]

    @property
    def waiting(self) -> bool:
        """True if calls wait."""

    @property
    def post(self) -> Callable[[Callable[[], None]], None]:
        """Schedule a function to be called in the loop."""

    def take(self, reader: BorrowedReader, now: float) -> ReadCall[Any] | None:
        """Take the next call for ``reader``; None if the reader has to stop."""

    def put_back(self, call: ReadCall[Any]) -> None:
        """Put ``call``, which has not run, back at the head of the line."""

    def leave(self, reader: BorrowedReader) -> None:
        """Note that ``reader`` takes no more calls in this hop."""

    def came_back(self, reader: BorrowedReader) -> None:
        """Decide in the loop what ``reader`` does next."""


@final
class BorrowedReader:
    """One reader, borrowed from ``pool``, which was ``engine``'s pool at that time.

    ``call`` has run on it since ``since`` (monotonic seconds); None if no call runs. ``gap`` is set
    if no read transaction may begin for a moment. ``executor`` is that of its connection.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_context",
        "_done",
        "_ends_at",
        "_engine",
        "_fairy",
        "_here",
        "_line",
        "_permit",
        "_pool",
        "call",
        "clean",
        "executor",
        "gap",
        "given_up",
        "look_at",
        "since",
    )

    def __init__(
        self,
        line: Line,
        engine: Engine,
        pool: FairPool,
        fairy: PoolProxiedConnection,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        connection: Any = fairy.dbapi_connection
        self._line = line
        self._engine = engine
        self._pool = pool
        self._fairy: PoolProxiedConnection | None = fairy
        self.executor: Executor = connection.executor
        permit = self.executor.transaction.checkout
        assert permit is not None
        permit.work_for(None)  # the task that has checked it out ends now
        self._permit = permit
        self._clock = clock
        self.look_at = clock() + SLICE_SECONDS
        self._ends_at = self.look_at + _LONGEST_SECONDS
        self._context = contextvars.Context()
        self.clean = True
        self._here: ThreadConnection | None = None
        self._done: deque[ReadCall[Any]] = deque()  # calls that have ended, to be reported
        self.call: ReadCall[Any] | None = None
        self.since = 0.0
        self.given_up = False
        self.gap: Snapshots | None = None

    # -- in the loop ----------------------------------------------------------------------------

    def serve(self) -> bool:
        """Run the calls in the line, in one hop; return False if the connection is closed."""
        try:
            job = self.executor.worker.run(self._serve, interruptible=False)
        except dbapi.Error:
            return False
        job.add_done_callback(self._end_hop, context=self._context)
        return True

    def _end_hop(self, _: Job[None]) -> None:
        # Tasks resume before it is decided whether the reader is returned: if they make their next
        # calls at once, no other checkout is needed.
        try:
            self.report_done()
        finally:
            self._line.came_back(self)

    def report_done(self) -> None:
        """Resume the tasks of the calls that have ended."""
        done = self._done
        try:
            while done:
                done.popleft().report()
        except BaseException:  # KeyboardInterrupt in a task: the other tasks still resume
            self._line.post(self.report_done)
            raise

    def may_stay(self, now: float) -> bool:
        """Return whether it may run further calls at ``now``. Any thread may call this."""
        return self.clean and (now < self.look_at or self.may_stay_longer(now))

    def may_stay_longer(self, now: float) -> bool:
        """Return whether it may stay for another slice."""
        if self._pool.waiting or self._engine.pool is not self._pool or now >= self._ends_at:
            return False
        self.look_at = now + SLICE_SECONDS
        return True

    @property
    def at_rest(self) -> bool:
        """True if its thread has finished the calls."""
        return self.executor.worker.at_rest

    @property
    def needs_no_wait(self) -> bool:
        """True if its return does not wait for anything: no listener, no lent connection."""
        dispatch = self._pool.dispatch
        return not (self.executor.worker.lent or dispatch.reset or dispatch.checkin)

    def take_fairy(self) -> PoolProxiedConnection | None:
        """Return the pool's proxy, which is to be returned; from the second call on, None."""
        fairy, self._fairy, self.clean = self._fairy, None, False
        return fairy

    # -- in the thread --------------------------------------------------------------------------

    def _serve(self, sqlite: sqlite3.Connection) -> None:
        thread = get_ident()
        self._line.threads.add(thread)
        try:
            self.executor.policy.other_work_begins(sqlite)
            watch_progress(sqlite, self._look, PROGRESS_STEPS)
            self._run_calls(sqlite)
            if self.executor.worker.open_connection is not None:  # no function has closed it
                watch_progress(sqlite, None, 0)
        except BaseException as error:
            self.clean = False
            if self.call is not None:  # the error is not the call's own
                self.call.fail(error)
                self._done.append(self.call)
            raise
        finally:
            self._line.threads.discard(thread)
            self._line.leave(self)

    def _run_calls(self, sqlite: sqlite3.Connection) -> None:
        line, done = self._line, self._done
        # One cursor for all BEGINs and ROLLBACKs: Connection.execute() would create one each time.
        cursor = sqlite.cursor()
        now, unreported_since, number = self._clock(), 0.0, 0
        while (call := line.take(self, now)) is not None:
            if done and (
                not line.waiting
                or now - unreported_since >= TOGETHER_SECONDS
                or (line.long.known and line.long.expected(call.fn))
            ):
                line.post(self.report_done)
            if not done:
                unreported_since = now
            self._run(sqlite, cursor, call)
            if self.gap is not None:
                break
            now = self._clock()
            if line.long.known or now - self.since >= TOGETHER_SECONDS:
                line.long.note(call.fn, now - self.since)
            done.append(call)
            number += 1
            if rest.forking:
                self.executor.worker.between_steps()
        if self.executor.worker.open_connection is not None:
            cursor.close()
        self.executor.counts.ran_functions(number)

    def _look(self) -> bool:
        """Return whether to stop the running statement. SQLite calls this."""
        return self._here is not None and self._here.look()

    def _run(self, sqlite: sqlite3.Connection, cursor: sqlite3.Cursor, call: ReadCall[Any]) -> None:
        executor, permit, fairy = self.executor, self._permit, self._fairy
        assert fairy is not None
        here = self._here = ThreadConnection(sqlite, executor, fairy, caller=call)
        permit.work_for(call.task)
        permit.since, permit.last_sql, permit.idle_since = self.since, "BEGIN", None
        rules, snapshot = executor.rules, None
        try:
            if call.cancelled or call.get_loop().is_closed():
                raise asyncio.CancelledError
            if rules.enters_snapshots:
                snapshot = rules.snapshots.begin(permit, end_early=here.end_early)
                if snapshot is None:
                    self.gap, self.clean = rules.snapshots, False
                    self._line.put_back(call)
                    return
            cursor.execute("BEGIN")
            if rules.commits_wait:
                self._lock(sqlite)
            call.run(here)
        except BaseException as error:  # raised again where the call is awaited
            call.fail(error)
        finally:
            self._end(sqlite, cursor, here, call)
            if snapshot is not None:
                rules.snapshots.end(snapshot)

    def _lock(self, sqlite: sqlite3.Connection) -> None:
        """Acquire the lock that the first read needs without WAL, and that others may hold."""
        try:
            with self.executor.authorizer.aside():
                sqlite.execute("PRAGMA schema_version").fetchone()
        except dbapi.OperationalError as error:
            if is_lock(error):
                raise Locked(error, self.executor.rules) from error
            raise

    def _end(
        self,
        sqlite: sqlite3.Connection,
        cursor: sqlite3.Cursor,
        here: ThreadConnection,
        call: ReadCall[Any],
    ) -> None:
        """End the transaction; note whether the connection is in the same state as before."""
        executor = self.executor
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
            self.clean = False
        executor.transaction.lost_by = self._here = self.call = None
        if here.touched or call.cancelled or executor.worker.ended is not None:
            self.clean = False
            self.given_up = executor.transaction.cancelled = call.let_go
