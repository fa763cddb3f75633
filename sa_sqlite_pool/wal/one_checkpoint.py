"""One checkpoint, from the first lock to the last number, in one job.

A checkpoint that runs alongside a writer can lose commits on most versions of SQLite (see
:mod:`~.reset_bug`). So no connection of any process may commit while one runs. Within the process,
the write turn prevents commits. In other processes, SQLite's own write lock does: a second
connection holds it meanwhile, as in Litestream; a PASSIVE checkpoint does not need it itself:

    Checkpointing connection    | Second connection | Writers of other processes
                                | BEGIN IMMEDIATE   |
    wal_checkpoint(PASSIVE)     |                   | BEGIN IMMEDIATE: busy
                                | ROLLBACK          |

FULL, RESTART and TRUNCATE acquire that lock themselves before they read the log, so they cannot run
while the second connection holds it. If the lock is taken, they continue without it, like PASSIVE.
On a SQLite with that bug, they are therefore never run. Instead, a write does the rest of their
work, which is safe: a writer that finds everything moved and no reader on the log restarts it and
truncates it to ``journal_size_limit``. So the second connection writes a value unchanged:

                                | BEGIN IMMEDIATE   |
                                | PRAGMA user_version = the same
                                | COMMIT            |
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import TypeVar, final

from ..execution.connection_thread import ConnectionThread
from ..execution.jobs import Job
from ..files.location import Location
from ..files.log_file import measure, sync_file, sync_open_file
from ..files.open_files import open_files
from ..settings import PragmaValue
from ..stats.log import Checkpoint, CheckpointMode, CheckpointOutcome
from ..system.clock import time
from ..transactions.locks import keep_trying, may_pass
from .reset_bug import has_reset_bug

Numbers = tuple[int, int, int]


def outcome_of(mode: CheckpointMode, numbers: Numbers) -> CheckpointOutcome:
    """Return the outcome that the results of ``PRAGMA wal_checkpoint`` indicate."""
    busy, frames, moved = numbers
    if frames < 0:  # "-1 if … could not run": the lock was taken, or there is no log
        return CheckpointOutcome.BUSY if busy else CheckpointOutcome.NOT_WAL
    if moved < frames or busy:
        return CheckpointOutcome.HELD_BACK
    if mode is CheckpointMode.TRUNCATE:
        return CheckpointOutcome.TRUNCATED
    return CheckpointOutcome.MOVED_ALL


T = TypeVar("T")

_REST_SECONDS = 0.1
_OPEN_SECONDS = 5.0


@final
class Checkpointer:
    """The two connections for a checkpoint, each in a thread of its own.

    Open them before acquiring the turn, and close them after releasing it.
    """

    def __init__(self, location: Location, pragmas: Mapping[str, PragmaValue]) -> None:
        assert location.file is not None
        self._location = location
        self._file = location.file
        self._pragmas = pragmas
        self._workers: list[ConnectionThread] = []
        self._snapshot_on: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Open both connections, or raise the error of ``sqlite3``; call ``close()`` even then."""
        open_files.assert_in_place(self._file)
        try:
            while len(self._workers) < 2:  # noqa: PLR2004 - one for checkpoints, one for the lock
                worker = await ConnectionThread.open(self._location.sqlite_uri, self._file)
                self._workers.append(worker)
                await self._prepare(worker)
        except sqlite3.Error:
            open_files.assert_in_place(self._file)  # it may have been lost since then
            raise

    async def _prepare(self, worker: ConnectionThread) -> None:
        # Closing a connection tries to acquire an exclusive lock, and holds it for a moment.
        await keep_trying(
            lambda: worker.run(lambda connection: _prepare(connection, self._pragmas)),
            _OPEN_SECONDS,
        )

    def run(self, mode: CheckpointMode) -> Job[Checkpoint]:
        """Start a checkpoint under the write turn. A cancellation stops it without losing data.

        The job does not wait for any lock: if another process is writing, it raises
        ``sqlite3.OperationalError`` before it has done anything.
        """
        worker, second = self._workers
        lock, file = second.connection, self._file
        return worker.run(lambda connection: _checkpoint(connection, lock, mode, file))

    def begin_snapshot(self) -> Job[None]:
        """Open a snapshot of the present state and sync the log; call this without the turn.

        A checkpoint does not move anything newer than that state. It then neither waits for the log
        to be synced nor syncs the database: SQLite does so only when everything is moved and the
        log may restart.
        """
        return self._workers[0].run(lambda _: self._begin_snapshot())

    def _begin_snapshot(self) -> None:
        self.end_snapshot()
        connection = connect(self._location)
        connection.execute("BEGIN")
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        self._snapshot_on = connection
        sync_file(f"{self._file}-wal")

    def end_snapshot_and_sync(self) -> Job[None]:
        """End the snapshot and sync what was moved; call this without the turn."""
        return self._workers[0].run(lambda _: self._end_snapshot_and_sync())

    def _end_snapshot_and_sync(self) -> None:
        self.end_snapshot()
        sync_open_file(self._file)
        sync_file(f"{self._file}-wal")

    def end_snapshot(self) -> None:
        """End the snapshot; any thread may call this."""
        connection, self._snapshot_on = self._snapshot_on, None
        if connection is not None:
            connection.close()

    def in_thread(self, function: Callable[[], T]) -> Job[T]:
        """Call ``function``, which reads files, in the thread of the checkpoints."""
        return self._workers[0].run(lambda _: function())

    async def close(self) -> None:
        self.end_snapshot()
        try:
            while self._workers:
                await self._workers.pop().close()
        finally:
            self.give_up()  # has no effect unless this was cancelled

    def give_up(self) -> None:
        """Give up both connections at once, without waiting."""
        self.end_snapshot()
        while self._workers:
            worker = self._workers.pop()
            worker.give_up("its checkpoint is over", keep=False, done=lambda _: None)

    def close_before_fork(self) -> None:
        """Close both connections in the current thread, if no checkpoint is running."""
        give_up = time.monotonic() + _REST_SECONDS
        while not self._at_rest and time.monotonic() < give_up:
            time.sleep(0.0005)  # the thread has left SQLite and is about to finish the job
        if self._at_rest:
            self.end_snapshot()
            for worker in self._workers:
                worker.close_before_fork()

    @property
    def _at_rest(self) -> bool:
        return all(worker.at_rest for worker in self._workers)


def connect(location: Location) -> sqlite3.Connection:
    """Return a short-lived connection, which any thread may close."""
    return sqlite3.Connection(
        location.sqlite_uri, uri=True, isolation_level=None, timeout=0, check_same_thread=False
    )


def _prepare(connection: sqlite3.Connection, pragmas: Mapping[str, PragmaValue]) -> None:
    connection.execute("PRAGMA busy_timeout = 0")
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # which would run without the lock
    if "synchronous" in pragmas:  # it decides whether a checkpoint waits for the disk
        connection.execute(f"PRAGMA synchronous = {pragmas['synchronous']}")
    # PRAGMA wal_checkpoint needs the schema. Read it now rather than under the turn.
    connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()


def _checkpoint(
    connection: sqlite3.Connection, lock: sqlite3.Connection, mode: CheckpointMode, file: str
) -> Checkpoint:
    open_files.assert_in_place(file)  # again, after the wait for the turn
    began, log = time.monotonic(), f"{file}-wal"
    numbers, version = _under_lock(connection, lock)
    outcome = outcome_of(CheckpointMode.PASSIVE, numbers)
    if mode is not CheckpointMode.PASSIVE and outcome is CheckpointOutcome.MOVED_ALL:
        if not has_reset_bug(sqlite3.sqlite_version_info):
            numbers = _numbers(connection, mode)
            outcome = outcome_of(mode, numbers)
        elif mode is not CheckpointMode.FULL:
            numbers, outcome = _begin_anew(lock, log, numbers, mode, version)
    busy, frames, moved = numbers
    seconds, salts = time.monotonic() - began, measure(log).salts
    return Checkpoint(mode, outcome, bool(busy), frames, moved, seconds, salts=salts)


def move_after_commit(connection: sqlite3.Connection, location: Location) -> None:
    """Run PASSIVE on a connection that has just committed, unless another process writes.

    SQLite's own ``wal_autocheckpoint`` would do so while no connection holds the lock.
    """
    assert location.file is not None
    open_files.assert_in_place(location.file)
    lock = connect(location)
    try:
        _under_lock(connection, lock)
    except sqlite3.OperationalError as error:
        if not may_pass(error, in_transaction=False):
            raise
    finally:
        lock.close()


def _under_lock(connection: sqlite3.Connection, lock: sqlite3.Connection) -> tuple[Numbers, int]:
    """Run PASSIVE; return its numbers, and the version of the content that they describe."""
    lock.execute("BEGIN IMMEDIATE")
    try:
        return _numbers(connection, CheckpointMode.PASSIVE), _version(lock)
    finally:
        lock.execute("ROLLBACK")


def _numbers(connection: sqlite3.Connection, mode: CheckpointMode) -> Numbers:
    busy, frames, moved = connection.execute(f"PRAGMA wal_checkpoint({mode.value})").fetchone()
    return busy, frames, moved


def _version(lock: sqlite3.Connection) -> int:
    """Return a number that changes when another connection commits."""
    (version,) = lock.execute("PRAGMA data_version").fetchone()
    return int(version)


def _begin_anew(
    lock: sqlite3.Connection, log: str, numbers: Numbers, mode: CheckpointMode, moved_version: int
) -> tuple[Numbers, CheckpointOutcome]:
    """Restart the log by means of a write, after everything was moved."""
    limit = 0 if mode is CheckpointMode.TRUNCATE else -1
    lock.execute(f"PRAGMA journal_size_limit = {limit}")
    try:
        lock.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if may_pass(error, in_transaction=False):  # the writer with the lock restarts the log
            return numbers, CheckpointOutcome.MOVED_ALL
        raise
    try:
        if _version(lock) != moved_version:  # another writer was first, and has restarted the log
            lock.execute("ROLLBACK")
            return numbers, CheckpointOutcome.MOVED_ALL
        before = measure(log)
        (version,) = lock.execute("PRAGMA user_version").fetchone()
        lock.execute(f"PRAGMA user_version = {version}")
        lock.execute("COMMIT")
    except BaseException:
        if lock.in_transaction:
            lock.execute("ROLLBACK")
        raise
    after = measure(log)
    if after.salts == before.salts:  # the write was appended, because a reader uses the log
        return (1, after.frames, numbers[2]), CheckpointOutcome.HELD_BACK
    return (0, after.frames, 0), (
        CheckpointOutcome.TRUNCATED
        if mode is CheckpointMode.TRUNCATE
        else CheckpointOutcome.MOVED_ALL
    )
