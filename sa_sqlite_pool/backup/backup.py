"""Backups of a database that is in use."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar, final

from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from ..errors import ConfigurationError, DatabaseInUseError, DatabaseNotUsableError, ReadLockTimeout
from ..execution.connection_thread import ConnectionThread
from ..execution.jobs import OutOfTime
from ..execution.mailbox import Mailbox
from ..files.location import Location
from ..files.neighbours import users
from ..pools.base import FairPool
from ..settings import check_count
from ..system.atomic_file import AtomicFile, check_directory
from ..system.forks import renew_after_fork
from ..system.loop_state import call_unless_closed, of_running_loop
from ..transactions.locks import is_lock, keep_trying
from ..turn.permit import Permit
from ..turn.snapshots import Snapshots
from ..turn.whereabouts import caller
from .copying import begin_snapshot, check_integrity, check_not_locked, write_copy

T = TypeVar("T")

Progress = Callable[[int, int], object]
"""``progress(pages_copied, pages_total)``, such as ``print``."""

# A step of pages of 4 KiB takes about a millisecond.
DEFAULT_PAGES_PER_STEP = 256

SIDE_FILES = ("-wal", "-shm", "-journal")


@final
class Copying:
    """A copy in progress: jobs in threads, which other tasks may stop.

    ``what`` describes it like a statement, and ``detail`` says what an error means.
    """

    def __init__(self, what: str, detail: str) -> None:
        self.what = what
        self.ended: Future[None] = Future()
        self._detail = detail
        self._loop = asyncio.get_running_loop()
        self._worker: ConnectionThread | None = None
        self._stopped: Exception | None = None
        self._snapshot_is_over: Callable[[], None] = lambda: None

    @property
    def stranded(self) -> bool:
        """True if its event loop is closed: it is never awaited again."""
        return self._loop.is_closed()

    async def run(
        self,
        worker: ConnectionThread,
        function: Callable[[sqlite3.Connection], T],
        *,
        interruptible: bool = True,
    ) -> T:
        """Call ``function`` in the thread. Errors of SQLite and the system become SQLAlchemy's."""
        self.assert_going_on()
        self._worker = worker
        try:
            return await worker.run(function, interruptible=interruptible)
        except OutOfTime:
            self.assert_going_on()
            raise
        except (sqlite3.Error, OSError) as error:
            self.assert_going_on()
            raise self.error(error) from error
        finally:
            self._worker = None

    def error(self, error: sqlite3.Error | OSError) -> DBAPIError:
        """Return the error that SQLAlchemy raises for one of its driver."""
        if isinstance(error, OSError):
            error = DatabaseNotUsableError(str(error))
        kind = OperationalError if isinstance(error, sqlite3.OperationalError) else DatabaseError
        wrapped = kind(self.what, None, error)
        wrapped.add_detail(self._detail)
        return wrapped

    def assert_going_on(self) -> None:
        if self._stopped is not None:
            raise self._stopped

    def stop(self, error: Exception) -> None:
        """End the copy with ``error``. In its own loop."""
        if self._stopped is None:
            self._stopped = error
            if self._worker is not None:
                self._worker.stop_job()

    def end_snapshot(self, worker: ConnectionThread, connection: sqlite3.Connection) -> None:
        """End the read transaction, in the thread, once it is not needed: the loop may be dead."""
        with contextlib.suppress(sqlite3.Error):  # interrupted: it is closed next
            connection.execute("ROLLBACK")
        self._snapshot_is_over()
        self.let_go_if_stranded(worker)

    def let_go_if_stranded(self, worker: ConnectionThread) -> None:
        """Give up the connection, at the end of its job, if the loop can no longer close it."""
        if self.stranded:
            worker.give_up("its event loop is closed", keep=False, done=lambda _: None)

    @asynccontextmanager
    async def long_read(self, snapshots: Snapshots) -> AsyncIterator[None]:
        """Count as a read transaction that was declared long, within the block."""
        permit = Permit(asyncio.current_task(), time.monotonic())
        permit.asked_at, permit.last_sql, permit.idle_since = caller(), self.what, None
        while (snapshot := snapshots.begin(permit, long=True)) is None:
            await snapshots.until_no_gap()
        known = snapshot
        self._snapshot_is_over = lambda: snapshots.end(known)
        try:
            yield
        finally:
            self._snapshot_is_over()

    def stop_from_elsewhere(self, error: Exception) -> None:
        call_unless_closed(self._loop, self.stop, error)


def check_progress(progress: Progress | None) -> None:
    if progress is not None and not callable(progress):
        raise ConfigurationError(
            f"progress must be a function of the pages copied and their total, not {progress!r}"
        )


@asynccontextmanager
async def connected(location: Location, file: str | None) -> AsyncIterator[ConnectionThread]:
    """Open a new connection, with a thread of its own, within the block."""
    worker = await ConnectionThread.open(location.sqlite_uri, file)
    try:
        yield worker
    except GeneratorExit:  # the loop is gone: nothing can be awaited
        worker.give_up("its copy is over", keep=False, done=lambda _: None)
        raise
    finally:
        await worker.close()


def real_path(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.realpath(path))


def closed_file(path: str) -> Location:
    """Return the location of a closed database, which SQLite opens without a lock or a log."""
    return Location(path).with_parameter("mode", "ro").with_parameter("immutable", "1")


async def check_copy(copying: Copying, atomic: AtomicFile, put: Callable[[], None]) -> None:
    """Verify a file that is written, and call ``put()`` in the thread to put it in place."""

    def check(connection: sqlite3.Connection) -> None:
        try:
            with atomic.or_nothing():
                check_integrity(connection, f"the copy for {atomic.final}")
                worker.between_steps()  # a copy whose loop has died is not put in place
        finally:
            copying.let_go_if_stranded(worker)

    def put_in_place(connection: sqlite3.Connection) -> None:
        connection.close()
        with atomic.or_nothing():
            put()

    async with connected(closed_file(atomic.path), None) as worker:
        await copying.run(worker, check)
        await copying.run(worker, put_in_place, interruptible=False)


@final
class Backups:
    """The backups of one database. ``engine`` is its writer engine."""

    def __init__(self, engine: AsyncEngine, location: Location, read_timeout: float) -> None:
        self._engine = engine
        self._location = location
        self._read_timeout = read_timeout
        self._running: set[Copying] = set()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        """Forget the backups, which go on in the parent process."""
        self._running.clear()

    # -- when the database is closed ------------------------------------------------------------

    def stop(self, error: Callable[[], Exception]) -> None:
        """Make all backups raise ``error()`` where they are awaited."""
        for copying in list(self._running):
            copying.stop_from_elsewhere(error())

    async def all_ended(self, timeout: float) -> None:
        """Wait until no backup runs, at most ``timeout`` seconds."""
        running = [copying for copying in self._running if not copying.stranded]
        if running:
            await asyncio.wait([asyncio.wrap_future(c.ended) for c in running], timeout=timeout)

    # -- one backup -----------------------------------------------------------------------------

    async def make(
        self, path: str | os.PathLike[str], progress: Progress | None, pages: int
    ) -> None:
        """See :meth:`sa_sqlite_pool.SQLiteDatabase.backup`."""
        database = self._check(progress, pages)
        target = real_path(path)
        copying = Copying(
            f"BACKUP {self._location.label} TO {target}",
            "nothing of the copy is left, and an older one is as it was",
        )
        atomic = AtomicFile(target)
        told = Told(progress, copying)

        def copy(connection: sqlite3.Connection) -> None:
            # Without WAL, writers wait for the end of the copy, so it hurries.
            gently = self._pool.keeper is not None
            try:
                _check_target(target, database)
                with atomic.or_nothing():
                    atomic.create(like=database)
                    write_copy(*(connection, atomic.path, pages, worker, told.tell), gently=gently)
            finally:
                copying.end_snapshot(worker, connection)

        def put() -> None:
            _check_target(target, database)
            atomic.replace()

        self._running.add(copying)
        try:
            async with self._snapshot(copying) as worker:
                await copying.run(worker, copy)
            await check_copy(copying, atomic, put)
        finally:
            atomic.discard()
            self._running.discard(copying)
            copying.ended.set_result(None)

    def _check(self, progress: Progress | None, pages: int) -> str:
        check_count("pages_per_step", pages)
        check_progress(progress)
        if self._location.file is None:
            raise ConfigurationError(
                f"{self._location.label} is shared in memory and cannot be copied; use the path "
                'of a file, or SQLiteDatabase(":memory:")'
            )
        return self._location.file

    @property
    def _pool(self) -> FairPool:
        pool = self._engine.pool
        assert isinstance(pool, FairPool)
        return pool

    @asynccontextmanager
    async def _snapshot(self, copying: Copying) -> AsyncIterator[ConnectionThread]:
        """Open a connection that sees the present state until the end of the block."""
        pool, reader = self._pool, self._location.with_parameter("mode", "ro")
        async with (
            self._writers_in_line(copying)
            if pool.keeper is None
            else copying.long_read(pool.database_file.snapshots),
            connected(reader, self._location.file) as worker,
        ):
            await self._begin(copying, worker)
            yield worker

    @asynccontextmanager
    async def _writers_in_line(self, copying: Copying) -> AsyncIterator[None]:
        # Without WAL, no connection can commit while another reads. Writers that wait for the turn
        # are served in order, and told what has it; waiting for SQLite's lock, they would not be.
        async with self._engine.connect() as connection:
            checkout = self._pool.checkouts.of(await connection.get_raw_connection())
            assert checkout is not None
            checkout.permit.last_sql, checkout.permit.idle_since = copying.what, None
            yield

    async def _begin(self, copying: Copying, worker: ConnectionThread) -> None:
        try:
            await keep_trying(
                lambda: copying.run(worker, begin_snapshot), self._read_timeout, _is_lock
            )
        except OperationalError as error:
            if not _is_lock(error):
                raise
            raise ReadLockTimeout(
                f"waited {self._read_timeout:.2f} s to read from {self._location.label}; "
                "another connection holds SQLite's lock exclusively; end its transaction "
                "or raise read_timeout",
                error,
            ) from error


@final
class Told:
    """The calls of ``progress`` in the loop. Steps that are faster than the loop are left out."""

    def __init__(self, progress: Progress | None, copying: Copying) -> None:
        self._over = False
        self._progress = progress
        self._copying = copying
        self._context = contextvars.copy_context()
        # The thread reports the end of its job there, too: the last step comes before that.
        self._mailbox = of_running_loop(Mailbox)
        self._latest: tuple[int, int] | None = None

    def tell(self, copied: int, total: int) -> None:
        """Report a step. In the thread."""
        if self._progress is None:
            return
        self._latest = copied, total
        self._mailbox.post(self._call)

    def _call(self) -> None:
        latest, self._latest = self._latest, None
        if latest is None or self._over or self._progress is None:
            return
        try:
            self._context.run(self._progress, *latest)
        except Exception as error:
            self._over = True
            self._copying.stop(error)


def _is_lock(error: Exception) -> bool:
    return (
        isinstance(error, DBAPIError) and isinstance(error.orig, Exception) and is_lock(error.orig)
    )


def _check_target(target: Path, database: str) -> None:
    """Raise unless there is no file at ``target``, or a closed database other than this one."""
    check_directory(target)
    if _same(target, database) or str(target) in {f"{database}{side}" for side in SIDE_FILES}:
        raise DatabaseNotUsableError(
            f"{target} is the database itself, or belongs to it; choose another path"
        )
    refuse_side_files(
        target, "it would damage the copy; close that database, or choose another path"
    )
    if target.exists():
        # A process that only reads it keeps the old file; a writer's work would be lost.
        if found := users(str(target), writing=True):
            raise DatabaseInUseError(
                f"{target} is in use by {', '.join(found)}; close it, or choose another path"
            )
        check_not_locked(target)


def _same(path: Path, database: str) -> bool:
    try:
        return path.samefile(database)
    except FileNotFoundError:
        return False


def refuse_side_files(path: Path, why: str) -> None:
    """Raise ``DatabaseInUseError`` if a log or a journal is beside the database ``path``."""
    for side in SIDE_FILES:
        beside = Path(f"{path}{side}")
        # An empty journal is what journal_mode=TRUNCATE leaves.
        if beside.exists() and (side != "-journal" or beside.stat().st_size > 0):
            raise DatabaseInUseError(
                f"{path} is in use, or was not closed: there is {beside.name} beside it, and {why}"
            )
