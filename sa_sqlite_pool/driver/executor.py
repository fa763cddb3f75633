"""What runs on one connection: statements and the ends of transactions, under its rules.

Python's ``sqlite3`` begins transactions by itself, only before DML, and never for SELECT, DDL or
SAVEPOINT. That is switched off (``isolation_level=None``); BEGIN is sent with the first statement
that needs one, in the same hop. ``in_transaction`` is always SQLite's own answer, never a copy of
it, so nothing here can disagree with the database.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, final

from sqlalchemy.util import await_only

from ..errors import ConfigurationError, ForbiddenWriteError, StatementTimeout, TransactionLostError
from ..forks import rest
from ..settings import Role
from ..turn.permit import Permit, shorten
from .guard import Guard
from .jobs import Job, OutOfTime
from .locks import Patience, TimeLimit, may_pass
from .placement import Place, place_of_end
from .reading import Reading
from .rules import Plan, Rules, Standing, is_refused, needs_turn, plan
from .statements import Kind, changes_settings, classify
from .worker import Worker
from .writing import Writing

T = TypeVar("T")
Call = Callable[[sqlite3.Connection], T]


@final
class Executor:
    """Executes for one connection. SQLAlchemy calls it in a greenlet; it waits by ``await_only``.

    ``loan`` is the permit under which the connection is checked out of its pool; the SQL that
    runs is noted there for messages. ``cancelled`` says that a cancellation has passed through.
    """

    __slots__ = (
        "_gone",
        "_judged",
        "_lost",
        "_tries_again",
        "_wrote",
        "autocommit",
        "cancelled",
        "guard",
        "loan",
        "misuse",
        "reading",
        "role",
        "rules",
        "settings_changed",
        "worker",
        "writing",
    )

    def __init__(self, worker: Worker, guard: Guard | None, rules: Rules) -> None:
        self.worker = worker
        self.guard = guard
        self.rules = rules
        self.role = rules.role
        self.autocommit = False
        self.loan: Permit | None = None
        self.misuse: ConfigurationError | None = None  # raised at the next statement
        self.cancelled = False
        self.settings_changed = False  # by a PRAGMA or ATTACH while on loan
        self.reading = Reading(worker, rules.snapshots, self._after_work)
        self.writing = Writing(rules)
        self._gone = False  # given up, and its transaction has ended
        self._tries_again = False  # and keeps its turn until then
        self._wrote = False  # the open transaction ran more than reads
        self._lost: str | None = None  # why SQLite ended the transaction by itself
        self._judged: dict[str, Kind] = {}  # texts that look like reads and are none

    @property
    def statement_timeout(self) -> float | None:
        """What cursors begin with."""
        return self.rules.statement_timeout

    def wait_for(self, awaitable: Awaitable[T]) -> T:
        """``await_only``, noting a cancellation."""
        try:
            return await_only(awaitable)
        except asyncio.CancelledError:
            self.cancelled = True
            raise

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
        if self._lost is not None:
            raise self._transaction_lost()
        self.reading.assert_not_ended()
        kind = self._judged.get(sql) or classify(sql)
        patience = Patience(
            self.rules,
            self.loan,
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
            self.wait_for(patience.wait(error))
        except BaseException:
            self._after_work()
            raise
        self.writing.others_had_lock(time.monotonic() - began)

    def run_in_thread(self, call: Callable[[], T], *, timeout: float | None = None) -> T:
        """Run what begins and ends no transaction, such as fetching: one hop."""
        was_open = self.worker.in_transaction
        try:
            return self.wait_for(self.worker.run(lambda _: call(), timeout=timeout))
        except (sqlite3.Error, OutOfTime) as error:
            self.reading.assert_not_ended()
            self._note_loss(was_open, error)
            if isinstance(error, OutOfTime):
                raise self._took_too_long("fetching", timeout) from None
            raise
        finally:
            self._after_work()

    def run_briefly(self, call: Callable[[], T]) -> T:
        """Run what neither waits nor reads the file: on the loop, if the thread is idle."""
        if not self.worker.may_run_inline:
            return self.run_in_thread(call)
        with rest():
            result = call()
        self._after_work()
        return result

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
            return self.wait_for(self._start(sql, kind, call, atomic, patience, limit))
        except (sqlite3.Error, OutOfTime) as error:
            self.reading.assert_not_ended()
            if isinstance(error, sqlite3.Error):
                self._explain(error, kind)
                # A reader's transaction is never promoted, so it may wait in the middle of it.
                promoted = self.worker.in_transaction and self.role is not Role.READER
                self._tries_again = may_pass(error, in_transaction=promoted)
            if kind is not Kind.END:
                self._note_loss(was_open, error)
            raise
        finally:
            self._remember(sql, kind)
            if not self._tries_again:
                self._after_work()

    def _note_loss(self, was_open: bool, error: Exception) -> None:
        if was_open and not self.worker.in_transaction and not self.worker.closed:
            self._lost = str(error) or "the statement was stopped"

    def _remember(self, sql: str, kind: Kind) -> None:
        if kind.writes or kind is Kind.SAVEPOINT:
            self._wrote = True
        if kind.may_change_settings and self.loan is not None and changes_settings(sql):
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
        standing = self._admit(sql, kind)
        waits = needs_turn(kind, standing)
        how = plan(kind, standing._replace(has_turn=standing.has_turn or waits), atomic=atomic)
        commits = kind.writes or kind is Kind.END

        def function(connection: sqlite3.Connection) -> T:
            return self._perform(connection, how, call, commits=commits)

        self._note(sql)
        if waits and not self.writing.begin_nowait():
            prepare = None if limit is not None else lambda: self._prepare(function)
            job = self.wait_for(self.writing.begin(patience, self.loan, prepare))
            self._note(sql)
            if job is not None:
                return job
        while not self.writing.begun and not self.reading.begin(self.loan):
            self.wait_for(self.reading.until_no_gap())
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
            self.writing.begun,
            self.autocommit,
            self.worker.in_transaction,
        )
        if is_refused(kind, standing):
            raise self._forbidden(shorten(sql))
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
                self._meet_busy()
            raise
        finally:
            if guard is not None:
                guard.access = resting
        if commits and not connection.in_transaction:
            self.writing.leave_file()
            self._look_at_log(connection)
        return result

    def _meet_busy(self) -> None:
        if self.rules.turn is not None:
            self.rules.turn.meet_busy()
        if self.rules.log is not None:
            self.rules.log.meet_busy()

    def look_at_log(self) -> None:
        """See to the log after work that has passed this executor by."""
        if self.rules.log is not None:
            connection = self.worker.connection
            self.run_in_thread(lambda: self._look_at_log(connection))

    def _look_at_log(self, connection: sqlite3.Connection) -> None:
        if self.rules.log is not None:
            self.rules.log.look(connection)

    def _explain(self, error: sqlite3.Error, kind: Kind) -> None:
        denied = self.guard and self.guard.denied
        if not denied:
            return
        if self.role is Role.READER:
            raise self._forbidden(denied) from error
        raise _Misjudged(Kind.MAINTENANCE if kind is Kind.SETTING else Kind.WRITE) from error

    def _forbidden(self, what: str) -> ForbiddenWriteError:
        return ForbiddenWriteError(
            f"a reader of {self.rules.label} cannot change a database: {what}; "
            "use a writer session or the writer engine"
        )

    def _took_too_long(self, sql: str, seconds: float | None) -> StatementTimeout:
        lost = (
            "SQLite has rolled its transaction back: call rollback() and start again; "
            if self._lost is not None
            else ""
        )
        return StatementTimeout(
            f"a statement on {self.rules.label} was stopped after statement_timeout="
            f"{seconds} s: {shorten(sql)}; {lost}make it shorter, or raise "
            "statement_timeout (of the engine, or in execution_options of this statement)"
        )

    # -- the end of a transaction ---------------------------------------------------------------

    def commit(self) -> None:
        """Commit what is open; see :meth:`SQLiteConnection.commit`."""
        self.worker.assert_usable()  # or what was rolled back meanwhile would pass for committed
        if self._lost is not None:
            lost, self._lost = self._transaction_lost(), None
            raise lost
        try:
            self._end("COMMIT")
        except Exception:
            self._end("ROLLBACK")
            raise

    def rollback(self) -> None:
        """Roll back what is open, and close the streams."""
        for stream in list(self.reading.streams):
            stream.close()
        self._lost = None
        self._end("ROLLBACK")

    def end_read(self) -> None:
        """End the read transaction; an open stream keeps the snapshot to its own end."""
        self._end("ROLLBACK")

    def data_version(self) -> int:
        """Another number when somebody else has committed."""
        # "The integer values returned by two invocations of "PRAGMA data_version" from the same
        # connection will be different if changes were committed to the database by any other
        # connection in the interim": https://www.sqlite.org/pragma.html#pragma_data_version
        return self.run_statement("PRAGMA data_version", _data_version)

    def _end(self, sql: str) -> None:
        self.reading.forget()
        holds = self.writing.begun or self.reading.open
        if not holds and not self.worker.in_transaction:
            return
        try:
            if self.worker.in_transaction:
                self._note(sql)
                self._send_end(sql)
        finally:
            self._after_work()

    def _send_end(self, sql: str) -> None:
        doubtful = self.rules.doubtful
        if place_of_end(self.worker, wrote=self._wrote, doubtful=doubtful) is Place.INLINE:
            rest.begin(self)
            try:
                self.worker.connection.execute(sql)
            finally:
                rest.end(self)
        else:
            self._end_in_thread(sql)

    def _end_in_thread(self, sql: str) -> None:
        patience = Patience(self.rules, self.loan, writing=True, commits=sql == "COMMIT")
        while True:
            try:
                job = self.worker.run(
                    lambda connection: self._end_and_look(connection, sql),
                    text=sql,
                    interruptible=False,
                )
                return self.wait_for(job)
            except sqlite3.OperationalError as error:
                # COMMIT waits for readers where there is no WAL; the transaction stays open.
                if not may_pass(error, in_transaction=False):
                    raise
                self.wait_for(patience.wait(error))

    def _end_and_look(self, connection: sqlite3.Connection, sql: str) -> None:
        _end(connection, sql)
        self.writing.leave_file()
        if sql == "COMMIT":
            self._look_at_log(connection)

    def _after_work(self) -> None:
        worker = self.worker
        if self._gone:
            self.let_go()  # of what it was waiting for when the connection was given up
        if worker.closed or not worker.at_rest:
            return  # whoever gives the connection up gives the turn back, after the rollback
        if (loan := self.loan) is not None:
            loan.idle_since = time.monotonic()
        self.reading.drop()
        if not worker.in_transaction:
            self._wrote = False
            self.let_go()
            if (log := self.rules.log) is not None and log.due:
                log.attend()

    def gone(self) -> None:
        """The connection is given up, and its transaction has ended. From any thread."""
        # Thread       | Task
        # _gone = True | takes the turn
        # let_go()     | if _gone: let_go()
        # Whichever comes last finds the turn.
        self._gone = True
        self.let_go()

    def let_go(self) -> None:
        """Give back the turn, and be no reader any more; when the transaction has ended."""
        self.writing.end()
        self.reading.end()

    def _transaction_lost(self) -> TransactionLostError:
        return TransactionLostError(
            f"SQLite has rolled this transaction back by itself ({self._lost}); nothing of it is "
            "kept: call rollback() and start again"
        )

    # -- for messages ---------------------------------------------------------------------------

    def _note(self, sql: str) -> None:
        if (loan := self.loan) is not None:
            loan.last_sql, loan.idle_since = sql, None
        if (permit := self.writing.permit) is not None:
            permit.last_sql, permit.idle_since = sql, None

    def permits_come_back(self) -> None:
        """The task has done with them; what is left is a thread's business."""
        for permit in (self.loan, self.writing.permit):
            if permit is not None:
                permit.coming_back = True


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


def _end(connection: sqlite3.Connection, sql: str) -> None:
    if connection.in_transaction:
        connection.execute(sql)
