"""The jobs of one SQLite connection, and the hops to the thread in which it is used.

Its own thread is aiosqlite's, so that users get an ordinary ``aiosqlite.Connection`` as
``driver_connection``. Jobs are put on its queue without a future: a job reports its own
outcome, so it may be cancelled, and may find its loop closed, without ending the thread.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import aiosqlite

from ..files.open_files import LogLostError, open_files
from ..mutex import new_lock
from ..sqlite.driver_errors import dbapi, is_read_only
from ..system.clock import time
from ..system.forks import rest
from .jobs import OVER, Job
from .raw import mark_closed, queue_of
from .shared_thread import SharedThread

T = TypeVar("T")

# Seconds between two checks whether another thread has finished with the connection.
_LOOK_SECONDS = 0.001


def no_connection(reason: str) -> str:
    """Return the message about a connection that has ended.

    SQLAlchemy's dialect recognizes a disconnect by the first words, and opens a new connection.
    """
    return f"no active connection: {reason}"


@dataclass(frozen=True, slots=True)
class ConnectionThreadStatistics:
    """``hops`` counts the jobs so far, ``busy`` is True while one runs or is queued.

    ``ended`` is the reason why the connection can no longer be used; None as long as it can.
    """

    hops: int
    busy: bool
    ended: str | None


class RunsJobs:
    """One ``sqlite3`` connection, used by one job at a time: the base of ConnectionThread.

    ``hops`` counts the hops from the loop to the thread and back; tests and statistics read it.
    ``uses`` counts those, and the uses of the connection on the loop.
    ``ended`` is the reason why it can no longer be used; None as long as it can. ``file`` is the
    real path of the database, None for an in-memory one.

    ``lent`` is True if the application uses the connection, too, in the connection's own thread.
    Then all calls run there, one after the other: some functions of ``sqlite3`` wait for SQLite's
    mutex while they hold the interpreter lock (for example ``set_authorizer``), and a statement
    that calls a Python function would wait for that lock for ever.

    ``spent`` is True if the connection must not be checked out again: the application has replaced
    the file with another database, in memory (``deserialize()``), or SQLite has ignored a
    setting. ``suspect`` is True if SQLite has reported something as read-only: see
    :func:`..sqlite.inspection.should_write`.

    Properties that tell whether it can be used, in order of increasing demands (each inlines the
    others, since they are read several times in each statement):

    - ``closed``: it was given up, closed, or its thread has stopped;
    - ``needs_check``: it is closed, suspect or spent, so it is checked before its next checkout;
    - ``application_uses_it``: the application's own work on the raw connection runs or is queued;
    - ``at_rest``, ``connection_at_rest``: neither such work nor a job runs or is queued;
    - ``idle_connection``, ``may_run_inline``: at rest, the raw connection is not lent, and the loop
      may use it at this moment.
    """

    __slots__ = (
        "_in_own_thread",
        "_in_use",
        "_last_job",
        "_shared",
        "_threadsafe",
        "_was_open",
        "aiosqlite_connection",
        "ended",
        "file",
        "hops",
        "lent",
        "spent",
        "suspect",
        "uses",
    )

    def __init__(
        self,
        connection: aiosqlite.Connection,
        threadsafe: bool,
        shared: SharedThread | None,
        file: str | None,
    ) -> None:
        self.aiosqlite_connection = connection
        self.file: str | None = None
        self.ended: str | None = None
        self.hops = 0
        self.uses = 0
        self.lent = False
        self.spent = False
        self.suspect = False
        self._in_use = new_lock()  # by the loop, or by a thread that keeps the loop away
        self._shared = shared if threadsafe else None
        self._last_job: Job[Any] | None = None
        self._in_own_thread = False  # whether the last job is, instead of in the shared thread
        self._threadsafe = threadsafe
        self._was_open = False  # whether a transaction was open when SQLite was last asked
        queue_of(connection)
        self.belongs_to(file)

    def statistics(self) -> ConnectionThreadStatistics:
        """Return the number of hops, and whether a job runs or is queued; from any thread."""
        return ConnectionThreadStatistics(self.hops, not self.at_rest, self.ended)

    def belongs_to(self, file: str | None) -> None:
        """Set the real path of its database, unless it is known already."""
        if self.file is None and file is not None:
            self.file = file
            open_files.add(self.aiosqlite_connection, file)

    @property
    def connection(self) -> sqlite3.Connection:
        """The ``sqlite3`` connection; raises ``sqlite3.OperationalError`` once it is given up."""
        raw = self.aiosqlite_connection
        connection = raw._connection
        if self.ended is not None or connection is None or not raw._running:
            raise self._no_connection()
        return connection

    @property
    def open_connection(self) -> sqlite3.Connection | None:
        """The ``sqlite3`` connection as long as it is open, even after it has been given up."""
        return self.aiosqlite_connection._connection

    def assert_usable(self) -> None:
        """Raise the same error as :attr:`connection` once the connection is given up."""
        if self.closed:
            raise self._no_connection()

    def _no_connection(self) -> sqlite3.OperationalError:
        return sqlite3.OperationalError(no_connection(self.ended or "it was closed"))

    @property
    def closed(self) -> bool:
        raw = self.aiosqlite_connection
        return self.ended is not None or raw._connection is None or not raw._running

    @property
    def needs_check(self) -> bool:
        """True if the connection may be unusable at its next checkout."""
        raw = self.aiosqlite_connection
        closed = self.ended is not None or raw._connection is None or not raw._running
        return closed or self.suspect or self.spent

    @property
    def closed_by_application(self) -> bool:
        """True if the application itself has closed or stopped the raw connection."""
        # A stopped connection may still be open, but its thread no longer runs queued items.
        return self.ended is None and self.closed

    @property
    def in_transaction(self) -> bool:
        """True if SQLite has a transaction open. This takes no hop.

        While another thread uses the connection, this is the last answer, and SQLite is not asked.
        From 3.53 on, SQLite waits for its mutex before it answers, while ``sqlite3`` holds the
        interpreter lock. The other thread's statement may call Python code, which would then wait
        for that lock for ever.
        """
        raw = self.aiosqlite_connection
        connection = raw._connection
        if self.ended is not None or connection is None or not raw._running:
            return False
        at_rest = (job := self._last_job) is None or job.stage in OVER
        if (at_rest and not raw._tx.unfinished) or self._is_used_here:  # type: ignore[attr-defined]
            self._was_open = connection.in_transaction
        return self._was_open

    @property
    def _is_used_here(self) -> bool:
        """True in the thread that uses the connection now, within that use."""
        thread, job = threading.get_ident(), self._running_job
        own = self.aiosqlite_connection._thread
        return thread == own.ident or (job is not None and job.thread == thread)

    def note_open(self, connection: sqlite3.Connection) -> None:
        """Ask SQLite, in the thread that uses the connection, whether a transaction is open."""
        try:
            self._was_open = connection.in_transaction
        except dbapi.Error:  # it is closed
            self._was_open = False

    def note_closed(self, connection: sqlite3.Connection) -> None:
        """Note, in the thread that uses the connection, whether the application has closed it."""
        try:
            self._was_open = connection.in_transaction
        except dbapi.ProgrammingError:
            mark_closed(self.aiosqlite_connection)

    @property
    def application_uses_it(self) -> bool:
        return bool(queue_of(self.aiosqlite_connection).unfinished)

    @property
    def at_rest(self) -> bool:
        """True if nothing is running or queued."""
        no_job = (job := self._last_job) is None or job.over
        return no_job and not self.application_uses_it

    @property
    def connection_at_rest(self) -> sqlite3.Connection | None:
        """The connection; None if it is given up, or anything is running or queued."""
        if self.ended is not None or not ((job := self._last_job) is None or job.stage in OVER):
            return None
        raw = self.aiosqlite_connection
        if raw._tx.unfinished or not raw._running:  # type: ignore[attr-defined]
            return None
        return raw._connection

    @property
    def idle_connection(self) -> sqlite3.Connection | None:
        """The connection if the thread is idle, so that the loop may use it for a moment."""
        raw = self.aiosqlite_connection
        idle = (
            self._threadsafe
            and not self.lent
            and ((job := self._last_job) is None or job.stage in OVER)
            and self.ended is None
            and raw._running
            and not raw._tx.unfinished  # type: ignore[attr-defined]
            and not self._in_use.locked()
        )
        return raw._connection if idle else None

    @property
    def may_run_inline(self) -> bool:
        """True if the loop may use the connection for a moment."""
        return self.idle_connection is not None

    def run(
        self,
        function: Callable[[sqlite3.Connection], T],
        *,
        text: str | None = None,
        interruptible: bool = True,
        timeout: float | None = None,
        before_report: Callable[[], None] | None = None,
    ) -> Job[T]:
        """Call ``function(connection)`` in a thread: ``await run(function)`` takes one hop.

        ``text`` is the text of a statement, which runs in the engine's shared thread unless it is
        known to be slow; everything else runs in the connection's own thread.

        A cancellation interrupts the running statement (SQLite may roll the transaction back,
        https://www.sqlite.org/c3ref/interrupt.html) and is raised when the thread is free again;
        with ``interruptible=False`` the function runs to its end first. After ``timeout`` seconds
        it is stopped in the same way, and :class:`~.jobs.OutOfTime` is raised. ``before_report()``
        is called in the loop immediately before the task resumes.
        """
        job = Job(
            *(function, self.connection),
            interruptible=interruptible,
            timeout=timeout,
            before_report=before_report,
        )
        self.hops += 1
        self.uses += 1
        last, self._last_job = self._last_job, job
        try:
            if last is not None and not last.over:
                self._queue_after(last, job)
            elif text is None or not self._shares(job, text):
                self._in_own_thread = True
                queue_of(self.aiosqlite_connection).put_job(job)
        except BaseException:  # a signal handler has raised it, or the stack is exhausted
            if job.drop():  # otherwise, the next job would wait for it
                self._last_job = last
            raise
        return job

    def _shares(self, job: Job[Any], text: str) -> bool:
        """Let the engine's shared thread run ``job`` if it may; return whether it does."""
        shared = None if self.lent else self._shared
        if shared is None or not shared.takes(text):
            return False
        self._in_own_thread = False
        return shared.submit(job, text)

    def _queue_after(self, last: Job[Any], job: Job[Any]) -> None:
        """Run ``job`` after ``last`` has ended, in the connection's own thread.

        SQLite lets two threads use a connection, one after the other. But ``sqlite3`` waits for
        that with the interpreter lock held, for example to read a row. If the other thread's
        statement then calls Python code, the two wait for each other, and the process hangs.
        """
        job.after = last

        def call() -> None:
            self._until_over(last)
            if self.ended is None:
                job()
            else:
                job.end_beside(self._no_connection())

        queue_of(self.aiosqlite_connection).put_job(job if self._in_own_thread else call)
        self._in_own_thread = True  # only now: a job that is not queued must not count as queued

    def _until_over(self, job: Job[Any] | None) -> None:
        """Wait until a thread has finished ``job``; stop it if the connection is given up.

        Later items in the queue, for example the application's, must not run beside it even then.
        """
        while job is not None and not job.over:
            if self.ended is None:
                time.sleep(_LOOK_SECONDS)
            else:
                job.end_in_thread(self._no_connection())

    def _unfinished(self) -> Iterator[Job[Any]]:
        """Yield the last job, and those for which it waits; the last one first."""
        job = self._last_job
        while job is not None:
            yield job
            job = job.after

    def call_inline(self, function: Callable[..., T], *args: Any) -> T:
        """Call ``function(connection, *args)`` in this thread; only if :attr:`may_run_inline`."""
        self.uses += 1
        raw = self.aiosqlite_connection
        working = rest.working
        working.add(self)
        if rest.forking:
            rest.begin(self)
        try:
            with self._in_use:
                connection = raw._connection
                if self.ended is not None or connection is None or not raw._running:
                    raise self._no_connection()
                return function(connection, *args)
        finally:
            working.discard(self)

    def run_after_job(self, function: Callable[[sqlite3.Connection], object]) -> None:
        """Call ``function(connection)`` in its own thread, before anything sent there later.

        This does not wait, and an error is discarded. The thread waits for jobs that use the
        connection elsewhere: otherwise, SQLite would wait for them with the interpreter lock held.
        Nothing is called if the connection is given up meanwhile.
        """
        job = self._last_job

        def call() -> None:
            self._until_over(job)
            with self._in_use, rest():
                connection = self.aiosqlite_connection._connection
                if self.ended is None and connection is not None:
                    function(connection)

        self.aiosqlite_connection._tx.put_nowait((None, call))

    def assert_may_commit(self) -> None:
        """Raise ``FileReplacedError``, in the thread, if its file is no longer in its place."""
        try:
            open_files.assert_may_commit(self.aiosqlite_connection)
        except LogLostError:
            self.suspect = True
            raise

    def note_error(self, error: BaseException) -> None:
        """Mark the connection as suspect if ``error`` reports that something is read-only."""
        if is_read_only(error):
            self.suspect = True

    def follow(self, other: RunsJobs) -> None:
        """Take over the connection of ``other``, whose last job was stopped, after that job."""
        self._last_job = other._last_job

    def stop_job(self) -> None:
        """Stop the running job, as its timeout would. Call this in the loop where it is awaited."""
        if (job := self._running_job) is not None and not job.over:
            job.time_is_over()

    @property
    def must_stop(self) -> bool:
        """True if the running job was cancelled or timed out, or its loop is closed."""
        job = self._running_job
        return job is not None and job.must_stop

    @property
    def _running_job(self) -> Job[Any] | None:
        """The running job, or the last one; other jobs may wait for it."""
        job = self._last_job
        while job is not None and (before := job.after) is not None and not before.over:
            job = before
        return job

    def assert_wanted(self) -> None:
        """Raise ``sqlite3.OperationalError`` if given up, or if the running job must stop."""
        self.assert_usable()
        if self.must_stop:
            raise sqlite3.OperationalError("interrupted")

    def between_steps(self) -> None:
        """Let a waiting ``fork()`` proceed; raise "interrupted" if the job must stop.

        A function that runs long without a statement calls this in its thread from time to time.
        """
        job = self._running_job
        assert job is not None
        job.let_others_fork()
        if self.must_stop:
            raise sqlite3.OperationalError("interrupted")
