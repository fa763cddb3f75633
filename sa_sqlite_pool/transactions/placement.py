"""Where a statement runs: in a thread, or inline, on the event loop itself.

A hop to a thread and back costs many times what a short statement does. So a statement that is
known to be short runs inline. What is known is learned, for each connection and SQL text
(``facts.py``): the first runs are timed in the thread, and what takes long, there or inline, goes
to the thread for a while, longer each time.

* A *read* runs under a budget: after some thousands of steps of SQLite's virtual machine a progress
  handler stops it, and it runs again in the thread. Its transaction stays as it is.
* A *write* is never stopped, so it has to be known better: "if the interrupted SQL operation is an
  INSERT, UPDATE, or DELETE that is inside an explicit transaction, then the entire transaction will
  be rolled back" (https://www.sqlite.org/c3ref/interrupt.html).
* What calls a function of the application never runs inline: it may wait for something, or do what
  must not be done twice. SQLite's authorizer tells, also of those in views and triggers.
* Nothing waits inline. SQLite's busy time-out is zero, so a lock in the way is an error, for which
  the task waits. COMMIT runs inline only where it appends to the log and does not sync it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Any, TypeVar, final

from ..execution.connection_thread import ConnectionThread
from ..settings import Placement
from ..sqlite.authorizer import Authorizer
from ..sqlite.driver_errors import dbapi
from ..sqlite.inspection import Commits, commits_of, has_own_collations, may_execute, own_functions
from ..sqlite.shared_hooks import install_authorizer, own_progress_handler, watch_progress
from ..sqlite.statements import LONGEST_REMEMBERED, Kind
from ..system.resources import disk_reads
from .facts import LONG_STEP_SECONDS, SHORT_SECONDS, FactsTable, StatementFacts
from .own_settings import OwnSettings

T = TypeVar("T")

# Steps of the virtual machine, some 50 ns each, between two questions of the progress handler.
# SQLite counts them over all runs of a compiled statement: the first question of a run comes after
# as many at the most, the second exactly as many later. Another may be about the BEGIN. So whoever
# is asked about for the third time has taken as many steps at least, and three times as many at
# the most.
_STEPS = 3_000

# Seconds of the processor, or by the clock if the disk was waited for, that are too long inline.
_LONG_SECONDS = 0.001

# A write of more rows is taken for a long one: what COMMIT has to write is not known otherwise.
_FEW_ROWS = 100

# After so many writes of one transaction, COMMIT is taken for a long one.
_FEW_WRITES = 50

# A limit of a statement that is so short cannot be kept without a thread.
_SHORTEST_TIMEOUT = 0.05

# Characters of long texts that the compiled statements of a connection may have.
_MOST_LONG_TEXTS = 4 * 1024 * 1024

# Of the progress handler, the last one first: go on, go on, stop.
_ANSWERS = (1, 0, 0)


class NotInline(Exception):  # noqa: N818 - no error: a way to go again
    """The statement has to run in the thread after all. Nothing has happened."""


@final
class PlacementPolicy:
    """Decides for one connection, and learns. Used by whoever uses the connection, in any thread.

    ``placement`` other than AUTO decides once and for all. ``writes`` counts the statements of the
    open transaction that wrote. ``size`` is how many texts are known,
    and how many statements ``sqlite3`` keeps compiled.
    """

    def __init__(self, placement: Placement, authorizer: Authorizer, size: int) -> None:
        self.authorizer = authorizer
        self.settings = OwnSettings(authorizer)
        self._learns = placement is Placement.AUTO
        self._always = placement is Placement.INLINE
        self._size = size
        self._long_texts = 0  # characters of those since the last time they were let go
        self.facts = FactsTable(size)
        self._end = StatementFacts("COMMIT")
        self._functions_known = False
        self._commits_known = False
        self._understood = False  # nothing but functions can be in the way
        self._commits = Commits()
        self._answers = list(_ANSWERS)
        self._armed = False
        self.writes = 0
        self._disk_reads = 0.0

    # -- decisions ------------------------------------------------------------------------------

    def is_inline(self, facts: StatementFacts, *, many: bool, timeout: float | None) -> bool:
        """Whether the statement is to run on the loop.

        ``many``: more than one run of it, an executemany or a stream.
        """
        if not self._learns:
            return self._always
        if many or not self._understood or (timeout is not None and timeout < _SHORTEST_TIMEOUT):
            return False
        writes = facts.kind is not Kind.READ
        if writes and not (facts.kind is Kind.WRITE and self._commits.to_log):
            return False
        return facts.is_short(writes=writes)

    def end_is_inline(self, log_is_quiet: Callable[[], bool]) -> bool:
        """Whether COMMIT or ROLLBACK of what was written is to run on the loop."""
        if not self._learns:
            return self._always
        return (
            self._commits.quick
            and self.writes <= _FEW_WRITES
            and self._end.is_short(writes=True)
            and log_is_quiet()
        )

    # -- inline ---------------------------------------------------------------------------------

    def run_inline(
        self,
        worker: ConnectionThread,
        facts: StatementFacts,
        kind: Kind,
        function: Callable[..., T],
        *args: Any,
    ) -> T:
        """Run a statement here, or raise :class:`NotInline` if that turns out to be wrong.

        ``function`` is called with the connection and ``args``.
        """
        if not self._learns:
            self._learn_in_any_case(worker.connection)
            return worker.run_here(function, *args)
        authorizer, reads, answers = self.authorizer, kind is Kind.READ, self._answers
        if reads is not self._armed:
            self._arm(worker.connection, reads)
        answers[:] = _ANSWERS
        authorizer.called, authorizer.inline = False, True
        cpu, clock = time.thread_time(), time.perf_counter()
        try:
            result = worker.run_here(function, *args)
        except dbapi.DatabaseError as error:
            if not authorizer.called and answers:
                raise
            self._note(facts, kind, error)
            facts.ran_too_long()
            raise NotInline from None
        finally:
            authorizer.inline = False
            answers[:] = _ANSWERS  # what comes next has few steps, or disarms it
        few_rows = (reads and not authorizer.called) or self._note(facts, kind, result)
        if few_rows and (
            time.perf_counter() - clock < _LONG_SECONDS or self._was_short(cpu)  # dearer to ask
        ):
            facts.inline += 1
        else:
            facts.ran_too_long()
        return result

    def run_briefly(self, worker: ConnectionThread, function: Callable[..., T], *args: Any) -> T:
        """Run here what takes no time, and has a few steps at the most."""
        self._answers[:] = _ANSWERS
        return worker.run_here(function, *args)

    def end_inline(self, worker: ConnectionThread, function: Callable[..., T], *args: Any) -> T:
        """Run COMMIT or ROLLBACK here."""
        if not self._learns:
            return worker.run_here(function, *args)
        if self._armed:
            self._arm(worker.connection, False)
        cpu, clock = time.thread_time(), time.perf_counter()
        result = worker.run_here(function, *args)
        if time.perf_counter() - clock < _LONG_SECONDS or self._was_short(cpu):
            self._end.inline += 1
        else:
            self._end.ran_too_long()
        return result

    def _was_short(self, cpu: float) -> bool:
        """Return whether what was long by the clock was short, since ``cpu`` of its processor."""
        if time.thread_time() - cpu >= _LONG_SECONDS:
            return False
        # It waited: for the disk, or for the interpreter lock and the processor, which others had.
        before, self._disk_reads = self._disk_reads, disk_reads()
        return before == self._disk_reads

    def _arm(self, connection: sqlite3.Connection, reads: bool) -> None:
        """Have reads stopped, and nothing else."""
        # A method in C: no signal is handled in it, whose exception SQLite would swallow.
        watch_progress(connection, self._answers.pop if reads else None, _STEPS if reads else 0)
        self._armed = reads

    # -- in a thread ----------------------------------------------------------------------------

    def run_in_thread(
        self,
        connection: sqlite3.Connection,
        facts: StatementFacts,
        kind: Kind,
        function: Callable[..., T],
        *args: Any,
    ) -> T:
        """Run a statement, and learn from it."""
        if len(facts.sql) > LONGEST_REMEMBERED:
            self.note_long_text(connection, facts.sql)
        if not self._learns:
            self._learn_in_any_case(connection)
            return function(connection, *args)
        self._prepare_in_thread(connection)
        self.authorizer.called = False
        cpu = time.thread_time()
        result = function(connection, *args)
        seconds = time.thread_time() - cpu
        facts.ran_in_thread(
            short=self._note(facts, kind, result) and seconds <= SHORT_SECONDS,
            steps_are_long=seconds / (len(getattr(result, "rows", ())) + 1) > LONG_STEP_SECONDS,
        )
        return result

    def note_long_text(self, connection: sqlite3.Connection, sql: str) -> None:
        """Keep the compiled statements from taking memory without bounds. In the thread.

        ``sqlite3`` keeps them by their number, however long their texts are, and lets go of them
        only for others.
        """
        self._long_texts += len(sql)
        if self._long_texts > _MOST_LONG_TEXTS:
            self._long_texts = 0
            for number in range(self._size):
                connection.execute(f"SELECT {number}").close()

    def end_in_thread(
        self, connection: sqlite3.Connection, function: Callable[..., T], *args: Any
    ) -> T:
        """Run COMMIT or ROLLBACK, and learn from it."""
        if not self._learns:
            return function(connection, *args)
        self._prepare_in_thread(connection)
        cpu = time.thread_time()
        result = function(connection, *args)
        self._end.ran_in_thread(short=time.thread_time() - cpu <= SHORT_SECONDS)
        return result

    def _prepare_in_thread(self, connection: sqlite3.Connection) -> None:
        if self._armed:
            self._arm(connection, False)
        if self._functions_known and self._commits_known:
            return
        with self.authorizer.aside():
            if not self._functions_known:
                self._learn_functions(connection)
                self._functions_known = True
            if not self._commits_known:
                self._commits = commits_of(connection)
                self._commits_known = True

    def _learn_in_any_case(self, connection: sqlite3.Connection) -> None:
        """Which functions the application has matters wherever statements run."""
        if not self._functions_known:
            self._functions_known = True
            with self.authorizer.aside():
                self._learn_functions(connection)

    def _learn_functions(self, connection: sqlite3.Connection) -> None:
        functions = self.authorizer.functions = own_functions(connection)
        self.authorizer.functions_may_write = may_execute(functions, connection)
        self._understood = (
            functions is not None
            and not has_own_collations(connection)
            and own_progress_handler(connection) is None  # it may wait, and must be called
        )
        # What is compiled already is compiled again, so that the authorizer is asked about it.
        install_authorizer(connection, self.authorizer)

    def _note(self, facts: StatementFacts, kind: Kind, result: object) -> bool:
        """Note what has run; return whether it has written few rows."""
        if self.authorizer.called:
            facts.calls_functions = True
        if kind is Kind.READ:
            return True
        self.writes += 1
        return getattr(result, "rowcount", 0) <= _FEW_ROWS

    # -- what happens to the connection ---------------------------------------------------------

    def functions_may_have_changed(self) -> None:
        """Somebody has registered one, or has worked on the connection itself."""
        self._functions_known = self._understood = False
        self.settings_may_have_changed()

    def settings_may_have_changed(self) -> None:
        """A PRAGMA or ATTACH has been executed."""
        self._commits_known, self._commits = False, Commits()

    def other_work_begins(self, connection: sqlite3.Connection) -> None:
        """Something else than a statement, of whatever length."""
        if self._armed:
            self._arm(connection, False)
