"""Where a statement runs: in a thread, or inline, on the event loop itself.

A hop to a thread and back takes many times as long as a short statement. So a statement that is
known to be short runs inline. This is learned for each connection and SQL text (``facts.py``): the
first runs are timed in the thread, and a statement that takes too long, there or inline, runs in
the thread for a while, longer each time.

* A *read* runs under a budget: after a few thousand steps of SQLite's virtual machine, a progress
  handler stops it, and it is rerun in the thread. Its transaction is unaffected.
* A *write* is never stopped, so more must be known about it: "if the interrupted SQL operation is
  an INSERT, UPDATE, or DELETE that is inside an explicit transaction, then the entire transaction
  will be rolled back" (https://www.sqlite.org/c3ref/interrupt.html).
* A statement that calls a function of the application never runs inline: the function may wait, or
  do work that must not be repeated. SQLite's authorizer reports calls, even in views and triggers.
* Nothing waits inline. SQLite's busy timeout is zero, so a lock in the way is an error; the task
  waits. COMMIT runs inline only if it appends to the log and does not sync it.
"""

from __future__ import annotations

import math
import sqlite3
import weakref
from collections.abc import Callable
from typing import Any, TypeVar, final

from ..execution.connection_thread import ConnectionThread
from ..settings import Placement
from ..sqlite.authorizer import Authorizer
from ..sqlite.driver_errors import dbapi
from ..sqlite.inspection import (
    OF_SQLALCHEMY,
    Commits,
    commits_of,
    functions_of_new,
    has_own_collations,
    may_execute,
    own_functions,
)
from ..sqlite.shared_hooks import install_authorizer, own_progress_handler, watch_progress
from ..sqlite.statements import LONGEST_REMEMBERED, Kind
from ..stats.counts import EngineCounts, Runs
from ..system.clock import time
from ..system.resources import CpuReading, cpu_seconds, disk_reads, read_cpu
from .facts import (
    LONG_STEP_SECONDS,
    SHORT_READS,
    SHORT_SECONDS,
    SHORT_WRITES,
    FactsTable,
    StatementFacts,
)
from .own_settings import OwnSettings
from .rules import Keeper

T = TypeVar("T")

# Steps of the virtual machine, some 50 ns each, between two calls of the progress handler. SQLite
# counts them across all runs of a compiled statement: the first call of a run happens after at most
# this many, the second exactly this many later. One call may be during the BEGIN. So by its third
# call a statement has taken at least this many steps, and at most three times as many.
_STEPS = 3_000

# CPU seconds, or elapsed seconds if it waited for the disk, that are too long inline.
_LONG_SECONDS = 0.001

# A write of more rows counts as long, since the amount COMMIT has to write is otherwise unknown.
_FEW_ROWS = 100

# After this many writes in one transaction, COMMIT counts as long.
_FEW_WRITES = 50

# Seconds. A shorter statement timeout cannot be enforced without a thread.
_SHORTEST_TIMEOUT = 0.05

# The most characters of long texts that the compiled statements of a connection may have.
_MOST_LONG_TEXTS = 4 * 1024 * 1024

# Return values of the progress handler, popped from the end: continue, continue, stop.
_ANSWERS = (1, 0, 0)


class NotInline(Exception):  # noqa: N818 - no error: the caller tries again
    """The statement has to run in the thread after all. It has had no effect."""


@final
class PlacementPolicy:
    """The placement of one connection's statements. Used in any thread that has the connection.

    The knowledge about the connection is created here, and kept for as long as it is open:
    ``authorizer``, ``settings``, the ``facts`` of its texts, and ``counts``, part of the engine's.
    A ``placement`` other than AUTO is final; ``always`` is True for INLINE. ``writes`` counts the
    statements of the open transaction that wrote. ``size`` is the number of texts remembered, and
    of statements that ``sqlite3`` keeps compiled. ``note_slow(sql, seconds)`` is called for
    statements that ran for ``slow_after`` seconds.
    """

    note_slow: weakref.WeakMethod[Callable[[str, float], None]]

    def __init__(
        self, placement: Placement, authorizer: Authorizer, size: int, counts: EngineCounts
    ) -> None:
        self.authorizer = authorizer
        self.settings = OwnSettings(authorizer)
        self._learns = placement is Placement.AUTO
        self.always = placement is Placement.INLINE
        self._size = size
        self._long_texts = 0  # characters compiled since the cache was last emptied
        self.counts = counts.new_connection(self)
        self.facts = FactsTable(size, self.counts)
        self._end = StatementFacts("COMMIT", Runs())  # counted as transactions
        self._functions_known = False
        self._commits_known = False
        self._understood = False  # only functions can prevent inline runs
        self._commits = Commits()
        self._answers = list(_ANSWERS)
        self._armed = False
        self.writes = 0
        self.slow_after = math.inf
        self._disk_reads = 0.0

    @property
    def keeps_to_thread(self) -> bool:
        """True if no statement at all may run on the event loop."""
        return not (self._learns or self.always)

    # -- decisions ------------------------------------------------------------------------------

    def is_inline(self, facts: StatementFacts, *, many: bool, timeout: float | None) -> bool:
        """Return whether the statement should run on the event loop.

        ``many`` is True for more than one run: an executemany or a stream.
        """
        if not self._learns:
            return self.always
        if many or not self._understood or (timeout is not None and timeout < _SHORTEST_TIMEOUT):
            return False
        if facts.kind is Kind.READ:
            return facts.short >= SHORT_READS
        return facts.kind is Kind.WRITE and self._commits.to_log and facts.short >= SHORT_WRITES

    def end_is_inline(self, keeper: Keeper | None) -> bool:
        """Return whether COMMIT or ROLLBACK of a transaction that wrote should run on the loop.

        This requires a ``keeper`` whose log is quiet.
        """
        if not self._learns:
            return self.always
        return (
            self._commits.quick
            and self.writes <= _FEW_WRITES
            and self._end.short >= SHORT_WRITES
            and keeper is not None
            and keeper.is_quiet()
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
        """Run a statement on the loop; raise :class:`NotInline` if it proves unsuitable.

        ``function`` is called with the connection and ``args``.
        """
        if not self._learns:
            self._learn_in_any_case(worker.connection)
            clock = time.perf_counter()
            result = worker.call_inline(function, *args)
            seconds = time.perf_counter() - clock
            facts.runs.ran_inline(seconds)
            if seconds >= self.slow_after:
                self._tell_slow(facts, seconds)
            return result
        authorizer, reads, answers = self.authorizer, kind is Kind.READ, self._answers
        if reads is not self._armed:
            self._arm(worker.connection, reads)
        if authorizer.busy_timeout:  # set by a function in a thread
            self.settings.switch_off_waiting(worker.connection)
        answers[:] = _ANSWERS
        authorizer.called, authorizer.inline = False, True
        clock = time.perf_counter()
        cpu = read_cpu(clock)
        try:
            result = worker.call_inline(function, *args)
        except dbapi.DatabaseError as error:
            if not authorizer.called and answers:
                raise
            self._note(facts, kind, error)
            facts.runs.too_long += 1
            facts.ran_too_long()
            raise NotInline from None
        finally:
            authorizer.inline = False
            answers[:] = _ANSWERS  # the next work is short, or switches the handler off
        seconds, runs = time.perf_counter() - clock, facts.runs
        runs.inline += 1
        runs.seconds += seconds
        runs.longest = max(runs.longest, seconds)
        few_rows = (reads and not authorizer.called) or self._note(facts, kind, result)
        if seconds >= self.slow_after:
            self._tell_slow(facts, seconds)
        # The slower check comes last.
        if few_rows and (seconds < _LONG_SECONDS or self._was_short(cpu, clock)):
            facts.inline += 1
        else:
            runs.too_long += seconds >= _LONG_SECONDS
            facts.ran_too_long()
        return result

    def run_briefly(self, worker: ConnectionThread, function: Callable[..., T], *args: Any) -> T:
        """Run a function on the loop that takes no time, and at most a few steps."""
        self._answers[:] = _ANSWERS
        return worker.call_inline(function, *args)

    def end_inline(self, worker: ConnectionThread, function: Callable[..., T], *args: Any) -> T:
        """Run COMMIT or ROLLBACK on the loop."""
        if not self._learns:
            return worker.call_inline(function, *args)
        if self._armed:
            self._arm(worker.connection, False)
        clock = time.perf_counter()
        cpu = read_cpu(clock)
        result = worker.call_inline(function, *args)
        if time.perf_counter() - clock < _LONG_SECONDS or self._was_short(cpu, clock):
            self._end.inline += 1
        else:
            self._end.ran_too_long()
        return result

    def _was_short(self, cpu: CpuReading, began: float) -> bool:
        """Return whether a run that was long by the clock used little CPU time since ``began``."""
        if cpu_seconds(cpu, began) >= _LONG_SECONDS:
            return False
        # It waited for the disk, or for the interpreter lock or the processor, which were busy.
        before, self._disk_reads = self._disk_reads, disk_reads()
        return before == self._disk_reads

    def _arm(self, connection: sqlite3.Connection, reads: bool) -> None:
        """Switch the progress handler on for reads, or off."""
        # A C method: no signals are handled in it, whose exceptions SQLite would swallow.
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
        """Run a statement in the thread, and learn from it."""
        if len(facts.sql) > LONGEST_REMEMBERED:
            self.note_long_text(connection, facts.sql)
        if not self._learns:
            self._learn_in_any_case(connection)
            return self._timed(facts, function, connection, *args)
        self._prepare_in_thread(connection, writes=kind is not Kind.READ)
        self.authorizer.called = False
        cpu = time.thread_time()
        try:
            result = self._timed(facts, function, connection, *args)
        except BaseException:
            if self.authorizer.called:  # the next attempt may not recompile it
                facts.called_functions()
            raise
        seconds = time.thread_time() - cpu
        facts.ran_in_thread(
            short=self._note(facts, kind, result) and seconds <= SHORT_SECONDS,
            steps_are_long=seconds / (len(getattr(result, "rows", ())) + 1) > LONG_STEP_SECONDS,
        )
        return result

    def _timed(self, facts: StatementFacts, function: Callable[..., T], *args: Any) -> T:
        """Call ``function(*args)``, which runs the statement; count it, and report it if slow."""
        clock = time.perf_counter()
        try:
            result = function(*args)
            facts.runs.ran_in_thread(time.perf_counter() - clock)
            return result
        finally:
            if (seconds := time.perf_counter() - clock) >= self.slow_after:
                self._tell_slow(facts, seconds)

    def _tell_slow(self, facts: StatementFacts, seconds: float) -> None:
        if (note := self.note_slow()) is not None:
            note(facts.sql, seconds)

    def note_long_text(self, connection: sqlite3.Connection, sql: str) -> None:
        """Bound the memory of compiled statements. Runs in the thread.

        ``sqlite3`` caches a fixed number of them, of any length, and evicts one only for another.
        """
        self._long_texts += len(sql)
        if self._long_texts > _MOST_LONG_TEXTS:
            self._long_texts = 0
            for number in range(self._size):
                connection.execute(f"SELECT {number}").close()

    def end_in_thread(
        self, connection: sqlite3.Connection, function: Callable[..., T], *args: Any
    ) -> T:
        """Run COMMIT or ROLLBACK in the thread, and learn from it."""
        if not self._learns:
            return function(connection, *args)
        self._prepare_in_thread(connection, writes=True)
        cpu = time.thread_time()
        result = function(connection, *args)
        self._end.ran_in_thread(short=time.thread_time() - cpu <= SHORT_SECONDS)
        return result

    def _prepare_in_thread(self, connection: sqlite3.Connection, *, writes: bool) -> None:
        if self._armed:
            self._arm(connection, False)
        if self._functions_known and (self._commits_known or not writes):
            return
        with self.authorizer.aside():
            if not self._functions_known:
                self._learn_functions(connection)
                self._functions_known = True
            if writes and not self._commits_known:
                self._commits = commits_of(connection)
                self._commits_known = True

    def _learn_in_any_case(self, connection: sqlite3.Connection) -> None:
        """Learn the application's functions, which matter regardless of the placement."""
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
            and own_progress_handler(connection) is None  # may wait, and must be called
        )
        # SQLite recompiles all compiled statements, and calls the authorizer for them.
        install_authorizer(connection, self.authorizer)

    def _note(self, facts: StatementFacts, kind: Kind, result: object) -> bool:
        """Record a run; return whether it wrote few rows."""
        if self.authorizer.called:
            facts.called_functions()
        if kind is Kind.READ:
            return True
        self.writes += 1
        return getattr(result, "rowcount", 0) <= _FEW_ROWS

    # -- changes of the connection --------------------------------------------------------------

    def is_new(self, connection: sqlite3.Connection) -> None:
        """Record at once that a connection has the functions of every new one, and no collations.

        Runs in the thread of a connection that this package has just opened.
        """
        functions = self.authorizer.functions = functions_of_new(connection)
        self._functions_known = self._understood = functions is not None

    def function_registered(self, name: object) -> None:
        """Add the name of a function that is about to be registered.

        No statement compiled earlier can call it: if it replaces a function with the same number of
        arguments, SQLite recompiles all statements (``sqlite3CreateFunc()`` in main.c).
        """
        known = self.authorizer.functions
        if known is None or not self._functions_known or not isinstance(name, str):
            self.functions_may_have_changed()
            return
        self.authorizer.functions = known | {name.lower()}
        self.authorizer.functions_may_write |= name.lower() not in OF_SQLALCHEMY

    def functions_may_have_changed(self) -> None:
        """Relearn the functions after one was registered, or the raw connection was used."""
        self._functions_known = self._understood = False
        self.settings_may_have_changed()

    def settings_may_have_changed(self) -> None:
        """Relearn how commits behave after a PRAGMA or ATTACH."""
        self._commits_known, self._commits = False, Commits()

    def other_work_begins(self, connection: sqlite3.Connection) -> None:
        """Prepare for work other than a statement, which may take any time."""
        if self._armed:
            self._arm(connection, False)
