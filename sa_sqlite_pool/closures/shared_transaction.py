"""Several closures that write share one transaction and one COMMIT, in one hop.

Each runs in its own greenlet, up to the point where SQLAlchemy commits. There, it waits for the
common COMMIT, and resumes when that has returned. So for SQLAlchemy, its events and the caller,
"committed" means that SQLite has committed:

    First                | Second                | SQLite
                         |                       | BEGIN IMMEDIATE
    runs, commit(): waits|                       |
                         |                       | SAVEPOINT
                         | runs, commit(): waits |
                         |                       | COMMIT
    resumes, is answered |                       |
                         | resumes, is answered  |

The first has no SAVEPOINT: if it fails, everything is rolled back, which is only its own work, and
BEGIN IMMEDIATE is sent again for the next function; no function runs twice. So a single closure
costs no more than without group commit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from threading import get_ident
from typing import Any, NamedTuple, final

from greenlet import getcurrent
from sqlalchemy.pool import PoolProxiedConnection

from ..compat.runners import Runner
from ..driver.executor import Executor
from ..sqlite.driver_errors import dbapi
from ..sqlite.shared_hooks import watch_progress
from ..system.clock import time
from ..transactions.attached import begin_and_lock_main
from ..transactions.locks import NotBegun, Patience, is_lock, pause_here
from .deferral import DeferredKeys, defers_now
from .line import Call, for_another
from .thread_connection import PROGRESS_STEPS, ThreadConnection

# Limits of one transaction. The remaining calls run next, before all later ones.
MOST_WORK = 64
LONGEST_SECONDS = 0.005

_NAME = "sa_sqlite_pool"
_SAVEPOINT = f"SAVEPOINT {_NAME}"


class _Waiting(NamedTuple):
    """A function that has run up to its COMMIT."""

    here: ThreadConnection
    runner: Runner

    def go_on(self) -> None:
        """Resume it after the COMMIT."""
        self.here.end()
        self._finish(self.runner.switch())

    def fail(self, error: BaseException) -> None:
        """Raise ``error`` from its COMMIT."""
        self.here.end()
        self._finish(self.runner.throw(error))

    def _finish(self, step: object) -> None:
        assert step is self.runner.outcome
        self.runner.finish()


@final
class SharedTransaction:
    """The work of one hop: a job for the connection's thread.

    :param proxied: the pool's proxy for the connection
    :param take_next: takes the next call in line, for this object only; None if there is none
    :param ended: called when all calls that were taken have their outcomes; its argument is whether
        the connection is in the same state as before
    :param deferred_keys: knows whether COMMIT may find violated foreign keys
    :param threads: the threads in which functions run
    """

    def __init__(
        self,
        executor: Executor,
        proxied: PoolProxiedConnection,
        take_next: Callable[[], Call[Any] | None],
        ended: Callable[[bool], None],
        deferred_keys: DeferredKeys,
        threads: set[int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._executor = executor
        self._transaction = executor.transaction
        self._proxied = proxied
        self._take_next = take_next
        self._ended = ended
        self._deferred_keys = deferred_keys
        self._threads = threads
        self._clock = clock
        self._defers = False
        self._waiting: list[_Waiting] = []
        self._here: ThreadConnection | None = None  # of the function that runs
        self._clean = True
        self._has_run = False  # whether any call has

    def __call__(self, sqlite: sqlite3.Connection) -> None:
        """Run the calls in line, as many as may share the transaction, and COMMIT.

        If the calls in line could not run, raise :class:`NotBegun`, and keep the turn until the
        next attempt, or raise SQLite's error. A call that has run receives its own outcome. If one
        has closed SQLite's connection, return: the calls in line can run on another connection.
        """
        permit = self._transaction.permit
        assert permit is not None
        leader, thread = permit.task, get_ident()
        self._threads.add(thread)
        try:
            self._executor.policy.other_work_begins(sqlite)
            watch_progress(sqlite, self._look, PROGRESS_STEPS)
            self._run_all(sqlite)
            self._commit(sqlite)
        except BaseException as error:
            self._fail(error)
            self._executor.worker.note_closed(sqlite)
            if not (self._has_run and self._executor.worker.closed_by_application):
                raise
        finally:
            self._threads.discard(thread)
            permit.work_for(leader)
            self._transaction.take_loss()
            self._executor.worker.note_closed(sqlite)
            if self._executor.worker.open_connection is not None:
                watch_progress(sqlite, None, 0)
                _roll_back(sqlite)
                sqlite.isolation_level = None  # a closure may have set another level
            self._ended(self._clean and not self._executor.worker.suspect)

    def _look(self) -> bool:
        """Return whether to stop the running statement. SQLite calls this."""
        return self._here is not None and self._here.look()

    # -- the work -------------------------------------------------------------------------------

    def _run_all(self, sqlite: sqlite3.Connection) -> None:
        began = self._clock()
        while len(self._waiting) < MOST_WORK:
            if self._waiting and (self._defers or self._clock() - began >= LONGEST_SECONDS):
                return
            self._executor.worker.assert_usable()
            if not sqlite.in_transaction:
                self._begin(sqlite)
            work = self._take_next()
            if work is None:
                return
            self._has_run = True
            try:
                self._run(sqlite, work)
            except BaseException as error:
                work.lose(for_another(error))
                raise

    def _begin(self, sqlite: sqlite3.Connection) -> None:
        self._transaction.note("BEGIN IMMEDIATE")
        try:
            if self._executor.authorizer.attached:  # IMMEDIATE would lock these files, too
                begin_and_lock_main(sqlite, self._executor.authorizer)
            else:
                sqlite.execute("BEGIN IMMEDIATE")
        except dbapi.OperationalError as error:
            self._executor.worker.note_error(error)
            if not is_lock(error):
                raise
            self._executor.rules.meet_busy()
            raise NotBegun(error) from error
        with self._executor.authorizer.aside():
            self._defers = self._deferred_keys.are_in(sqlite, self._executor.worker)

    def _run(self, sqlite: sqlite3.Connection, work: Call[Any]) -> None:
        assert self._transaction.permit is not None
        self._transaction.permit.work_for(work.task)
        first = not self._waiting
        if not first:
            sqlite.execute(_SAVEPOINT)
        here = self._here = ThreadConnection(
            *(sqlite, self._executor, self._proxied),
            caller=work,
            on_commit=getcurrent().switch,
            alone=first,
        )
        runner = Runner.take()
        runner.gr_context = work.context
        failed = runner.switch(work.run, (here,), {}) is runner.outcome
        self._here = None
        # COMMIT must follow, so that foreign keys that it finds violated can be attributed to one
        # call, even after a failure, since ROLLBACK TO leaves them deferred.
        self._defers = self._defers or here.defers
        if here.touched:
            self._clean = False
            if self._executor.worker.open_connection is not None:
                self._look_at_touched(sqlite)
        if failed:
            runner.finish()
            here.notice_end()
            here.end()
            self._undo(sqlite, first=first)
        else:
            self._waiting.append(_Waiting(here, runner))

    def _look_at_touched(self, sqlite: sqlite3.Connection) -> None:
        """Examine a connection that the last function has used directly."""
        # If the connection is of another class, the function's own handler has replaced this one.
        watch_progress(sqlite, self._look, PROGRESS_STEPS)
        with self._executor.authorizer.aside():
            self._defers = self._defers or defers_now(sqlite)

    def _undo(self, sqlite: sqlite3.Connection, *, first: bool) -> None:
        """Undo the work of the last function; raise an error if it closed the connection."""
        self._executor.worker.assert_usable()
        if lost := self._transaction.take_loss():
            self._fail(lost)
        elif first:
            _roll_back(sqlite)
        else:
            _roll_back_to_savepoint(sqlite)

    # -- its end --------------------------------------------------------------------------------

    def _commit(self, sqlite: sqlite3.Connection) -> None:
        try:
            self._send_commit(sqlite)
        except Exception as error:
            self._fail(error)
            return
        if not self._waiting:
            return
        self._transaction.committed(sqlite)
        waiting, self._waiting = self._waiting, []
        self._executor.counts.ran_functions(len(waiting))
        for one in waiting:
            one.go_on()

    def _send_commit(self, sqlite: sqlite3.Connection) -> None:
        """Send COMMIT for the functions that wait, except the last if it violates foreign keys."""
        while self._waiting:
            try:
                return self._keep_trying(sqlite)
            except dbapi.IntegrityError as error:
                self._waiting.pop().fail(error)
                if self._waiting:
                    _roll_back_to_savepoint(sqlite)
        return None

    def _keep_trying(self, sqlite: sqlite3.Connection) -> None:
        # Without WAL, COMMIT waits for readers. The greenlets cannot leave this thread, so it
        # blocks here and not in the loop.
        self._transaction.note("COMMIT")
        permit, rules = self._transaction.permit, self._executor.rules
        patience = Patience(rules, permit, writing=True, commits=True)
        counts, began = self._executor.counts, time.perf_counter()
        self._executor.worker.assert_may_commit()
        while True:
            self._executor.worker.assert_wanted()
            try:
                sqlite.execute("COMMIT")
            except dbapi.OperationalError as error:
                if not is_lock(error):
                    raise
                if patience.seconds_left <= 0:
                    raise patience.not_in_time(error) from error
                pause_here()
            else:
                counts.committed(time.perf_counter() - began)
                return

    def _fail(self, error: BaseException) -> None:
        """Fail the functions that have run: none of their work is kept."""
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.fail(for_another(error))


def _roll_back(sqlite: sqlite3.Connection) -> None:
    if sqlite.in_transaction:
        sqlite.execute("ROLLBACK")


def _roll_back_to_savepoint(sqlite: sqlite3.Connection) -> None:
    # The most recent one with that name: https://www.sqlite.org/lang_savepoint.html
    sqlite.execute(f"ROLLBACK TO {_NAME}")
    sqlite.execute(f"RELEASE {_NAME}")
