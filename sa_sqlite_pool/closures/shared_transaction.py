"""Several closures that write share one transaction and one COMMIT, in one hop.

Each runs in its own greenlet, up to the point where SQLAlchemy commits. There it waits for the
common COMMIT, and goes on when that has returned, so that for SQLAlchemy, its events and the
caller, "committed" is what SQLite says:

    First                | Second                | SQLite
                         |                       | BEGIN IMMEDIATE
    runs, commit(): waits|                       |
                         |                       | SAVEPOINT
                         | runs, commit(): waits |
                         |                       | COMMIT
    goes on, is answered |                       |
                         | goes on, is answered  |

The first has no SAVEPOINT: if it fails, all is rolled back, which is its own work only, and BEGIN
IMMEDIATE is sent again for the next function; none runs twice. So a single closure costs what it
would cost without group commit.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import sqlite3
from collections.abc import Callable
from threading import get_ident
from typing import Any, NamedTuple, Protocol, final

from greenlet import getcurrent
from sqlalchemy.pool import PoolProxiedConnection

from ..compat.runners import Runner
from ..driver.executor import Executor
from ..sqlite.driver_errors import dbapi
from ..sqlite.shared_hooks import watch_progress
from ..system.clock import time
from ..transactions.locks import NotBegun, Patience, is_lock, pause_here
from .deferral import DeferredKeys
from .thread_connection import PROGRESS_STEPS, ThreadConnection

# Bounds of one transaction. The rest comes next, before all later calls.
MOST_WORK = 64
LONGEST_SECONDS = 0.005

_NAME = "sa_sqlite_pool"
_SAVEPOINT = f"SAVEPOINT {_NAME}"


class Work(Protocol):
    """One caller's function; ``run`` keeps its outcome."""

    @property
    def cancelled(self) -> bool:
        """True if its caller does not wait for it any more."""

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """The task that waits for it."""

    @property
    def context(self) -> contextvars.Context:
        """The context in which it runs."""

    def run(self, here: ThreadConnection) -> None:
        """Run it; return when it is committed, or has failed."""

    def lose(self, error: BaseException) -> None:
        """Let ``error`` be its outcome, if it has none."""


class _Waiting(NamedTuple):
    """A function that has run, up to its COMMIT."""

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

    :param fairy: the pool's proxy of the connection
    :param take_next: takes the next call in line, for this object only; None if there is none
    :param ended: called when all that were taken have their outcomes, with whether the connection
        is as it was before
    :param deferred_keys: tells whether COMMIT may find violated foreign keys
    :param threads: the threads in which functions run
    """

    def __init__(
        self,
        executor: Executor,
        fairy: PoolProxiedConnection,
        take_next: Callable[[], Work | None],
        ended: Callable[[bool], None],
        deferred_keys: DeferredKeys,
        threads: set[int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._executor = executor
        self._transaction = executor.transaction
        self._fairy = fairy
        self._take_next = take_next
        self._ended = ended
        self._deferred_keys = deferred_keys
        self._threads = threads
        self._clock = clock
        self._defers = False
        self._waiting: list[_Waiting] = []
        self._here: ThreadConnection | None = None  # that of the function that runs
        self._clean = True

    def __call__(self, sqlite: sqlite3.Connection) -> None:
        """Run the calls in line, as many as may share it, and COMMIT.

        Raise :class:`NotBegun`, and keep the turn until the next try, or SQLite's error, if the
        calls in line could not run. A call that has run receives its own outcome.
        """
        checkout = self._transaction.checkout
        assert checkout is not None
        leader, thread = checkout.task, get_ident()
        self._threads.add(thread)
        try:
            self._executor.policy.other_work_begins(sqlite)
            watch_progress(sqlite, self._look, PROGRESS_STEPS)
            self._run_all(sqlite)
            self._commit(sqlite)
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            self._threads.discard(thread)
            checkout.work_for(leader)
            watch_progress(sqlite, None, 0)
            self._transaction.take_loss()
            _roll_back(sqlite)
            sqlite.isolation_level = None  # a closure may have set another
            self._ended(self._clean and not self._executor.worker.suspect)

    def _look(self) -> bool:
        """Return whether to stop the running statement. Called by SQLite."""
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
            try:
                self._run(sqlite, work)
            except BaseException as error:
                work.lose(another(error))
                raise

    def _begin(self, sqlite: sqlite3.Connection) -> None:
        self._transaction.note("BEGIN IMMEDIATE")
        try:
            sqlite.execute("BEGIN IMMEDIATE")
        except dbapi.OperationalError as error:
            self._executor.worker.note_error(error)
            if not is_lock(error):
                raise
            self._executor.rules.meet_busy()
            raise NotBegun(error) from error
        with self._executor.authorizer.aside():
            self._defers = self._deferred_keys.are_in(sqlite)

    def _run(self, sqlite: sqlite3.Connection, work: Work) -> None:
        assert self._transaction.checkout is not None
        self._transaction.checkout.work_for(work.task)
        first = not self._waiting
        if not first:
            sqlite.execute(_SAVEPOINT)
        here = self._here = ThreadConnection(
            *(sqlite, self._executor, self._fairy),
            caller=work,
            on_commit=getcurrent().switch,
            alone=first,
        )
        runner = Runner.take()
        runner.gr_context = work.context
        failed = runner.switch(work.run, (here,), {}) is runner.outcome
        self._here = None
        if here.touched:  # on a connection of another class, its handler has replaced this one
            self._clean = False
            watch_progress(sqlite, self._look, PROGRESS_STEPS)
        if failed:
            runner.finish()
            here.notice_end()
            here.end()
            self._undo(sqlite, first=first)
        else:
            self._waiting.append(_Waiting(here, runner))
            # COMMIT must follow, so that foreign keys it finds violated can be assigned to a call.
            self._defers = self._defers or here.defers

    def _undo(self, sqlite: sqlite3.Connection, *, first: bool) -> None:
        """Undo what the last function did."""
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
        """Send COMMIT for what waits, without the last if its foreign keys are violated."""
        while self._waiting:
            try:
                return self._keep_trying(sqlite)
            except dbapi.IntegrityError as error:
                self._waiting.pop().fail(error)
                if self._waiting:
                    _roll_back_to_savepoint(sqlite)
        return None

    def _keep_trying(self, sqlite: sqlite3.Connection) -> None:
        # Without WAL, it waits for readers. The greenlets cannot leave this thread, so it blocks
        # here and not in the loop.
        self._transaction.note("COMMIT")
        checkout, rules = self._transaction.checkout, self._executor.rules
        patience = Patience(rules, checkout, writing=True, commits=True)
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
        """Fail the functions that have run: nothing of them is kept."""
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.fail(another(error))


def another(error: BaseException) -> BaseException:
    """Return a copy of ``error``, which has a traceback of its own; itself if it has no copy.

    The class of an application's may take other arguments than it hands to ``Exception``.
    """
    try:
        return copy.copy(error)
    except Exception:
        return error


def _roll_back(sqlite: sqlite3.Connection) -> None:
    if sqlite.in_transaction:
        sqlite.execute("ROLLBACK")


def _roll_back_to_savepoint(sqlite: sqlite3.Connection) -> None:
    # The latest of that name: https://www.sqlite.org/lang_savepoint.html
    sqlite.execute(f"ROLLBACK TO {_NAME}")
    sqlite.execute(f"RELEASE {_NAME}")
