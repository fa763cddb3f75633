"""What runs on one connection: statements, under its rules.

Python's ``sqlite3`` begins transactions by itself, only before DML, and never for SELECT, DDL or
SAVEPOINT. That is switched off (``isolation_level=None``); BEGIN is sent with the first statement
that needs one, in the same hop. ``in_transaction`` is always SQLite's own answer, never a copy of
it, so nothing here can disagree with the database.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar, final

from ..errors import ConfigurationError, StatementTimeout
from ..forks import rest
from ..settings import Role
from ..turn.permit import shorten
from .guard import Guard
from .jobs import Job, OutOfTime
from .locks import Patience, TimeLimit, may_pass
from .rules import Plan, Rules, Standing, is_refused, needs_turn, plan
from .statements import Kind, changes_settings, classify
from .transaction import Transaction
from .worker import Worker

T = TypeVar("T")
Call = Callable[[sqlite3.Connection], T]


@final
class Executor:
    """Executes for one connection. SQLAlchemy calls it in a greenlet; it waits by ``await_only``.

    ``role`` is what the connection is for now. ``misuse`` is raised at the next statement.
    ``settings_changed`` says that a PRAGMA or ATTACH has changed them while it was on loan.
    """

    __slots__ = (
        "_judged",
        "_tries_again",
        "autocommit",
        "guard",
        "misuse",
        "role",
        "rules",
        "settings_changed",
        "transaction",
        "worker",
    )

    def __init__(self, worker: Worker, guard: Guard | None, rules: Rules) -> None:
        self.worker = worker
        self.guard = guard
        self.rules = rules
        self.role = rules.role
        self.autocommit = False
        self.misuse: ConfigurationError | None = None
        self.settings_changed = False
        self.transaction = Transaction(worker, rules)
        self._tries_again = False  # and keeps its turn until then
        self._judged: dict[str, Kind] = {}  # texts that look like reads and are none

    @property
    def statement_timeout(self) -> float | None:
        """What cursors begin with."""
        return self.rules.statement_timeout

    # -- statements -----------------------------------------------------------------------------

    def run_statement(
        self, sql: str, call: Call[T], *, atomic: bool = False, timeout: float | None = None
    ) -> T:
        """Execute ``sql`` by ``call``, in one hop with the BEGIN that it may need.

        ``atomic`` (executemany) is all or nothing also in AUTOCOMMIT: otherwise a lock held by
        somebody else could stop it half way, and the next try would insert the first half again.
        ``timeout`` is for the running, in seconds; the waiting has its own.
        """
        if self.misuse is not None:
            raise self.misuse
        transaction = self.transaction
        transaction.assert_not_lost()
        transaction.reading.assert_not_ended()
        kind = self._judged.get(sql) or classify(sql)
        patience = Patience(
            self.rules,
            transaction.loan,
            writing=kind.writes or self.role is Role.WRITER,
            commits=kind.writes and self.autocommit,
        )
        limit = None if timeout is None else TimeLimit(timeout)
        while True:
            try:
                return self._attempt(sql, kind, call, atomic, patience, limit)
            except _Misjudged as misjudged:
                self._judged[sql] = misjudged.kind
                break
            except sqlite3.OperationalError as error:
                if not self._tries_again:
                    raise
                self._wait_before_next_try(patience, error)
            except OutOfTime:
                raise self._took_too_long(sql, timeout) from None
        return self.run_statement(sql, call, atomic=atomic, timeout=timeout)

    def _wait_before_next_try(self, patience: Patience, error: sqlite3.Error) -> None:
        self._tries_again = False
        began = time.monotonic()
        try:
            self.transaction.wait_for(patience.wait(error))
        except BaseException:
            self.transaction.after_work()
            raise
        self.transaction.writing.others_had_lock(time.monotonic() - began)

    def run_in_thread(self, call: Callable[[], T], *, timeout: float | None = None) -> T:
        """Run what begins and ends no transaction, such as fetching: one hop."""
        was_open = self.worker.in_transaction
        try:
            return self.transaction.wait_for(self.worker.run(lambda _: call(), timeout=timeout))
        except (sqlite3.Error, OutOfTime) as error:
            self.transaction.reading.assert_not_ended()
            self.transaction.note_loss(was_open, error)
            if isinstance(error, OutOfTime):
                raise self._took_too_long("fetching", timeout) from None
            raise
        finally:
            self.transaction.after_work()

    def run_briefly(self, call: Callable[[], T]) -> T:
        """Run what neither waits nor reads the file: on the loop, if the thread is idle."""
        if not self.worker.may_run_inline:
            return self.run_in_thread(call)
        with rest():
            result = call()
        self.transaction.after_work()
        return result

    def data_version(self) -> int:
        """Another number when somebody else has committed."""
        # "The integer values returned by two invocations of "PRAGMA data_version" from the same
        # connection will be different if changes were committed to the database by any other
        # connection in the interim": https://www.sqlite.org/pragma.html#pragma_data_version
        return self.run_statement("PRAGMA data_version", _data_version)

    def look_at_log(self) -> None:
        """See to the log after work that has passed this executor by."""
        if self.rules.log is not None:
            connection = self.worker.connection
            self.run_in_thread(lambda: self.transaction.look_at_log(connection))

    def _attempt(
        self,
        sql: str,
        kind: Kind,
        call: Call[T],
        atomic: bool,
        patience: Patience,
        limit: TimeLimit | None,
    ) -> T:
        was_open = self.worker.in_transaction
        try:
            return self.transaction.wait_for(self._start(sql, kind, call, atomic, patience, limit))
        except (sqlite3.Error, OutOfTime) as error:
            self.transaction.reading.assert_not_ended()
            if isinstance(error, sqlite3.Error):
                self._explain(error, kind)
                # A reader's transaction is never promoted, so it may wait in the middle of it.
                promoted = self.worker.in_transaction and self.role is not Role.READER
                self._tries_again = may_pass(error, in_transaction=promoted)
            if kind is not Kind.END:
                self.transaction.note_loss(was_open, error)
            raise
        finally:
            self._remember(sql, kind)
            if not self._tries_again:
                self.transaction.after_work()

    def _remember(self, sql: str, kind: Kind) -> None:
        if kind.writes or kind is Kind.SAVEPOINT:
            self.transaction.wrote = True
        if kind.may_change_settings and self.transaction.loan is not None and changes_settings(sql):
            self.settings_changed = True

    def _start(
        self,
        sql: str,
        kind: Kind,
        call: Call[T],
        atomic: bool,
        patience: Patience,
        limit: TimeLimit | None,
    ) -> Job[T]:
        """Wait for what the statement needs, and have it run."""
        transaction = self.transaction
        standing = self._admit(sql, kind)
        waits = needs_turn(kind, standing)
        how = plan(kind, standing._replace(has_turn=standing.has_turn or waits), atomic=atomic)
        commits = kind.writes or kind is Kind.END

        def function(connection: sqlite3.Connection) -> T:
            return self._perform(connection, how, call, commits=commits)

        transaction.note(sql)
        writing, reading, loan = transaction.writing, transaction.reading, transaction.loan
        if waits and not writing.begin_nowait():
            prepare = None if limit is not None else lambda: self._prepare(function)
            job = transaction.wait_for(writing.begin(patience, loan, prepare))
            transaction.note(sql)
            if job is not None:
                return job
        while not writing.begun and not reading.begin(loan):
            transaction.wait_for(reading.until_no_gap())
        return self.worker.run(
            function, text=sql, timeout=None if limit is None else limit.seconds_left
        )

    def _prepare(self, function: Call[T]) -> Job[T]:
        """For another thread, in which the connection may be used as long as it is not given up."""

        def checked(connection: sqlite3.Connection) -> T:
            self.worker.assert_usable()
            return function(connection)

        return self.worker.prepare(checked)

    def _admit(self, sql: str, kind: Kind) -> Standing:
        """How the connection stands; an error where the statement may not be."""
        standing = Standing(
            self.role,
            self.rules.role is Role.AUTO,
            self.transaction.writing.begun,
            self.autocommit,
            self.worker.in_transaction,
        )
        if is_refused(kind, standing):
            raise self.rules.forbidden(shorten(sql))
        return standing

    def _perform(
        self, connection: sqlite3.Connection, plan: Plan, call: Call[T], *, commits: bool
    ) -> T:
        guard = self.guard
        if guard is not None:
            guard.denied = None
            resting, guard.access = guard.access, plan.access
        try:
            result = _execute(connection, plan, call)
        except sqlite3.OperationalError as error:
            if plan.begin == "BEGIN IMMEDIATE" and may_pass(error, in_transaction=False):
                self.rules.meet_busy()
            raise
        finally:
            if guard is not None:
                guard.access = resting
        if commits and not connection.in_transaction:
            self.transaction.writing.leave_file()
            self.transaction.look_at_log(connection)
        return result

    def _explain(self, error: sqlite3.Error, kind: Kind) -> None:
        denied = self.guard and self.guard.denied
        if not denied:
            return
        if self.role is Role.READER:
            raise self.rules.forbidden(denied) from error
        raise _Misjudged(Kind.MAINTENANCE if kind is Kind.SETTING else Kind.WRITE) from error

    def _took_too_long(self, sql: str, seconds: float | None) -> StatementTimeout:
        return self.rules.took_too_long(sql, seconds, lost=self.transaction.lost)


class _Misjudged(Exception):  # noqa: N818 - no error: a way to go again
    """SQLite says that what looked like a read is of another kind."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind)
        self.kind = kind


def _execute(connection: sqlite3.Connection, plan: Plan, call: Call[T]) -> T:
    if plan.begin is not None:
        connection.execute(plan.begin)
    if not plan.commit:
        return call(connection)
    try:
        result = call(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


def _data_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA data_version").fetchone()[0])
