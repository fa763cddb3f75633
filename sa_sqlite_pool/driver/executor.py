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
from typing import Any, Generic, TypeVar, final

from ..errors import ConfigurationError, StatementTimeout
from ..settings import Role
from ..turn.permit import shorten
from .greenlets import in_runner
from .jobs import Job, OutOfTime
from .locks import Patience, TimeLimit, may_pass
from .placement import NotInline, Placing
from .rules import Decision, Plan, Rules, decide
from .statements import Kind, changes_settings, classify
from .transaction import SQLITE_ERRORS, Transaction
from .worker import Worker

T = TypeVar("T")
Call = Callable[[sqlite3.Connection], T]


@final
class _Statement(Generic[T]):
    """One on its way. ``inline``: on the loop, if nothing is in the way.

    ``atomic`` (executemany) is all or nothing also in AUTOCOMMIT: otherwise a lock held by somebody
    else could stop it half way, and the next try would insert the first half again. ``limit`` is
    for the running; the waiting, since it ``began``, has its own, ``patience``.
    """

    __slots__ = ("atomic", "began", "call", "inline", "kind", "limit", "patience", "sql")

    def __init__(
        self,
        sql: str,
        kind: Kind,
        call: Call[T],
        limit: TimeLimit | None,
        *,
        atomic: bool,
        inline: bool,
    ) -> None:
        self.sql = sql
        self.kind = kind
        self.call = call
        self.atomic = atomic
        self.inline = inline
        self.limit = limit
        self.began = time.monotonic()
        self.patience: Patience | None = None  # few have to wait


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
        "misuse",
        "placing",
        "role",
        "rules",
        "settings_changed",
        "transaction",
        "worker",
    )

    def __init__(self, worker: Worker, placing: Placing, rules: Rules) -> None:
        self.worker = worker
        self.placing = placing
        self.rules = rules
        self.role = rules.role
        self.autocommit = False
        self.misuse: ConfigurationError | None = None
        self.settings_changed = False
        self.transaction = Transaction(worker, placing, rules)
        self._tries_again = False  # and keeps its turn until then
        self._judged: dict[str, Kind] = {}  # texts that look like reads and are none

    @property
    def statement_timeout(self) -> float | None:
        """What cursors begin with."""
        return self.rules.statement_timeout

    # -- statements -----------------------------------------------------------------------------

    def run_statement(
        self,
        sql: str,
        call: Call[T],
        *,
        atomic: bool = False,
        stream: bool = False,
        timeout: float | None = None,
    ) -> T:
        """Execute ``sql`` by ``call``, in one hop with the BEGIN that it may need, or in none.

        ``atomic`` (executemany) is all or nothing also in AUTOCOMMIT: otherwise a lock held by
        somebody else could stop it half way, and the next try would insert the first half again.
        ``stream``: what it gives is fetched later. ``timeout`` is for the running, in seconds; the
        waiting has its own.
        """
        if self.misuse is not None:
            raise self.misuse
        transaction = self.transaction
        transaction.assert_not_lost()
        transaction.reading.assert_not_ended()
        kind = self._judged.get(sql) or classify(sql)
        inline = self.placing.is_inline(sql, kind, many=atomic or stream, timeout=timeout)
        if inline and kind.writes and self.autocommit:
            inline = transaction.end_is_inline()
        if inline:
            self._pause()
            if kind is Kind.READ and (plan := self._plan_of_read()) is not None:
                try:
                    return self._read_here(sql, call, plan)
                except NotInline:
                    inline = False
                except sqlite3.Error:  # it fails again below, where errors are explained
                    if transaction.lost:
                        raise
        limit = None if timeout is None else TimeLimit(timeout)
        statement = _Statement(sql, kind, call, limit, atomic=atomic, inline=inline)
        try:
            return self._attempt_until_done(statement, timeout)
        except _Misjudged as misjudged:
            self._judged[sql] = misjudged.kind
        return self.run_statement(sql, call, atomic=atomic, stream=stream, timeout=timeout)

    def _attempt_until_done(self, statement: _Statement[T], timeout: float | None) -> T:
        while True:
            try:
                return self._attempt(statement)
            except NotInline:
                self._tries_again = statement.inline = False
            except sqlite3.OperationalError as error:
                if not self._tries_again:
                    raise
                self._wait_before_next_try(self._patience(statement), error)
            except OutOfTime:
                raise self._took_too_long(statement.sql, timeout) from None

    def _pause(self) -> None:
        """Before work on the loop, let others go on, now and then."""
        pause = self.placing.pause(self.transaction.loan)
        # SQLAlchemy's own methods insist that something is awaited, if only for no time.
        if pause.long or not in_runner():
            self.transaction.wait_for(pause)
            self.transaction.reading.assert_not_ended()  # meanwhile

    def _plan_of_read(self) -> Plan | None:
        """How a read is to run here and now; None if it has to wait for anything."""
        worker, transaction = self.worker, self.transaction
        if not worker.may_run_inline:
            return None
        decision = self._decide(Kind.READ, atomic=False)
        if decision.needs_turn or not (
            transaction.writing.begun or transaction.reading.begin(transaction.loan)
        ):
            return None
        return decision.plan

    def _read_here(self, sql: str, call: Call[T], plan: Plan) -> T:
        """Run a read that is known to be short, with little around it; errors are SQLite's own."""
        transaction, was_open = self.transaction, self.worker.in_transaction
        transaction.note(sql)
        try:
            return self.placing.run_inline(
                *(self.worker, sql, Kind.READ),
                lambda connection: self._perform(connection, plan, call, commits=False),
            )
        except SQLITE_ERRORS as error:
            transaction.note_loss(was_open, error)
            raise
        finally:
            transaction.after_work()

    def _decide(self, kind: Kind, *, atomic: bool) -> Decision:
        rules = self.rules
        return decide(
            kind,
            self.role,
            rules.role is Role.AUTO,
            self.transaction.writing.begun,
            self.autocommit,
            self.worker.in_transaction,
            atomic,
        )

    def _patience(self, statement: _Statement[Any]) -> Patience:
        if statement.patience is None:
            writes = statement.kind.writes
            statement.patience = Patience(
                self.rules,
                self.transaction.loan,
                writing=writes or self.role is Role.WRITER,
                commits=writes and self.autocommit,
                began=statement.began,
            )
        return statement.patience

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

        def function(connection: sqlite3.Connection) -> T:
            self.placing.other_work_begins(connection)
            return call()

        try:
            return self.transaction.wait_for(self.worker.run(function, timeout=timeout))
        except (*SQLITE_ERRORS, OutOfTime) as error:
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
        result = self.placing.run_briefly(self.worker, lambda _: call())
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

    def _attempt(self, statement: _Statement[T]) -> T:
        was_open, kind = self.worker.in_transaction, statement.kind
        try:
            return self._run(statement)
        except (*SQLITE_ERRORS, OutOfTime) as error:
            self.transaction.reading.assert_not_ended()
            if isinstance(error, sqlite3.Error):
                self._explain(error, kind)
                # A reader's transaction is never promoted, so it may wait in the middle of it.
                promoted = self.worker.in_transaction and self.role is not Role.READER
                self._tries_again = may_pass(error, in_transaction=promoted)
            if kind is not Kind.END:
                self.transaction.note_loss(was_open, error)
            raise
        except NotInline:
            self._tries_again = True
            raise
        finally:
            self._remember(statement.sql, kind)
            if not self._tries_again:
                self.transaction.after_work()

    def _remember(self, sql: str, kind: Kind) -> None:
        if kind.writes or kind is Kind.SAVEPOINT:
            self.transaction.wrote = True
        if kind.may_change_settings and changes_settings(sql):
            self.placing.settings_may_have_changed()
            if self.transaction.loan is not None:
                self.settings_changed = True

    def _run(self, statement: _Statement[T]) -> T:
        """Wait for what the statement needs, and have it run."""
        transaction, sql, kind = self.transaction, statement.sql, statement.kind
        refused, waits, how = self._decide(kind, atomic=statement.atomic)
        if refused:
            raise self.rules.forbidden(shorten(sql))
        commits, call = kind.writes or kind is Kind.END, statement.call

        def function(connection: sqlite3.Connection) -> T:
            return self._perform(connection, how, call, commits=commits)

        def in_thread(connection: sqlite3.Connection) -> T:
            return self.placing.run_in_thread(connection, sql, kind, function)

        transaction.note(sql)
        writing, reading, loan = transaction.writing, transaction.reading, transaction.loan
        if waits and not writing.begin_nowait():
            elsewhere = statement.limit is None and not self.worker.lent
            prepare = (lambda: self._prepare(in_thread)) if elsewhere else None
            begun: Job[T] | None = transaction.wait_for(
                writing.begin(self._patience(statement), loan, prepare)
            )
            transaction.note(sql)
            if begun is not None:
                return transaction.wait_for(begun)
        while not writing.begun and not reading.begin(loan):
            transaction.wait_for(reading.until_no_gap())
        if statement.inline and self.worker.may_run_inline:
            return self.placing.run_inline(self.worker, sql, kind, function)
        limit = statement.limit
        job = self.worker.run(
            in_thread,
            text=None if self.placing.steps_are_long(sql) else sql,
            timeout=None if limit is None else limit.seconds_left,
        )
        return transaction.wait_for(job)

    def _prepare(self, function: Call[T]) -> Job[T]:
        """For another thread, in which the connection may be used as long as it is not given up."""

        def checked(connection: sqlite3.Connection) -> T:
            self.worker.assert_usable()
            return function(connection)

        return self.worker.prepare(checked)

    def _perform(
        self, connection: sqlite3.Connection, plan: Plan, call: Call[T], *, commits: bool
    ) -> T:
        guard = self.placing.guard
        guard.denied = None
        resting, guard.access = guard.access, plan.access
        try:
            result = _execute(connection, plan, call)
        except sqlite3.OperationalError as error:
            if plan.begin == "BEGIN IMMEDIATE" and may_pass(error, in_transaction=False):
                self.rules.meet_busy()
            raise
        finally:
            guard.access = resting
        if commits and not connection.in_transaction:
            self.transaction.writing.leave_file()
            self.transaction.look_at_log(connection)
        return result

    def _explain(self, error: sqlite3.Error, kind: Kind) -> None:
        denied = self.placing.guard.denied
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
