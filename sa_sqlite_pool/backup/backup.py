"""Backups of a database that is in use."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import final

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from ..errors import ConfigurationError, DatabaseInUseError, DatabaseNotUsableError, ReadLockTimeout
from ..execution.connection_thread import ConnectionThread
from ..files.location import SIDE_FILES, TURN_FILES, Location
from ..files.neighbours import users
from ..files.open_files import FileReplacedError, open_files
from ..pools.base import FairPool
from ..settings import check_count
from ..system.atomic_file import AtomicFile
from ..system.clock import time
from ..system.forks import renew_after_fork
from ..system.regular_files import check_directory, mode_of
from ..system.waiting import done_in_time
from ..transactions.locks import is_lock, keep_trying
from .copy_job import (
    CopyJob,
    Progress,
    ProgressReports,
    check_copy,
    check_progress,
    connected,
    real_path,
    refuse_side_files,
)
from .page_copy import begin_snapshot, check_not_locked, write_copy

# A step of pages of 4 KiB takes about a millisecond.
DEFAULT_PAGES_PER_STEP = 256


@final
class Backups:
    """The backups of one database. ``engine`` is its writer engine."""

    def __init__(self, engine: AsyncEngine, location: Location, read_timeout: float) -> None:
        self._engine = engine
        self.location = location
        self._read_timeout = read_timeout
        self._running: set[CopyJob] = set()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        """Forget the backups, which continue in the parent process."""
        self._running.clear()

    # -- when the database is closed ------------------------------------------------------------

    def stop(self, error: Callable[[], Exception]) -> None:
        """Make all backups raise ``error()`` in the tasks that await them."""
        for job in list(self._running):
            job.stop_from_elsewhere(error())

    async def all_ended(self, timeout: float) -> None:
        """Wait, at most ``timeout`` seconds, until no backup is running."""
        give_up = time.monotonic() + timeout
        for job in [job for job in self._running if not job.stranded]:
            await done_in_time(job.ended, max(0.0, give_up - time.monotonic()))

    # -- one backup -----------------------------------------------------------------------------

    async def make(
        self, path: str | os.PathLike[str], progress: Progress | None, pages: int
    ) -> None:
        """Make a backup: see :meth:`sa_sqlite_pool.SQLiteDatabase.backup`."""
        database = self._check(progress, pages)
        target = real_path(path)
        job = CopyJob(
            f"BACKUP {self.location.label} TO {target}",
            "no partial copy is left, and an older one is as it was",
        )
        atomic = AtomicFile(target)
        told = ProgressReports(progress, job)

        def copy(connection: sqlite3.Connection) -> None:
            # Without WAL, writers wait for the end of the copy, so it does not pause.
            gently = self._pool.keeper is not None
            try:
                _check_target(target, database)
                with atomic.or_nothing():
                    atomic.create(like=database, source=database)
                    write_copy(connection, atomic.path, pages, worker, told.tell, gently=gently)
            finally:
                job.end_snapshot(worker, connection)

        def put() -> None:
            _check_target(target, database)
            atomic.replace()

        self._running.add(job)
        try:
            async with self._snapshot(job) as worker:
                await job.run(worker, copy)
            await check_copy(job, atomic, put)
        finally:
            atomic.discard()
            self._running.discard(job)
            job.ended.set_result(None)

    def _check(self, progress: Progress | None, pages: int) -> str:
        check_count("pages_per_step", pages)
        check_progress(progress, "the pages copied and their total")
        if self.location.file is None:
            raise ConfigurationError(
                f"{self.location.label} is a shared in-memory database and cannot be copied; use "
                'the path of a file, or SQLiteDatabase(":memory:")'
            )
        return self.location.file

    @property
    def _pool(self) -> FairPool:
        pool = self._engine.pool
        assert isinstance(pool, FairPool)
        return pool

    @asynccontextmanager
    async def _snapshot(self, job: CopyJob) -> AsyncIterator[ConnectionThread]:
        """Open a connection that sees the present state until the end of the block."""
        pool, reader = self._pool, self.location.with_parameter("mode", "ro")
        self._assert_in_place(job)
        async with (
            self._writers_in_line(job)
            if pool.keeper is None
            else job.long_read(pool.database_file.snapshots),
            connected(reader, self.location.file) as worker,
        ):
            try:
                await self._begin(job, worker)
            except Exception:
                self._assert_in_place(job)
                raise
            self._assert_in_place(job)  # the path may have led to another file
            yield worker

    def _assert_in_place(self, job: CopyJob) -> None:
        """Raise ``OperationalError`` if the path leads to another file than connections have."""
        assert self.location.file is not None
        try:
            open_files.assert_in_place(self.location.file)
        except FileReplacedError as error:
            raise job.error(error) from error

    @asynccontextmanager
    async def _writers_in_line(self, job: CopyJob) -> AsyncIterator[None]:
        # Without WAL, no connection can commit while another reads. Writers that wait for the turn
        # are served in order, and errors name its holder; neither holds for SQLite's own lock.
        async with self._engine.connect() as connection:
            checkout = self._pool.checkouts.of(await connection.get_raw_connection())
            assert checkout is not None
            checkout.permit.last_sql, checkout.permit.idle_since = job.what, None
            yield

    async def _begin(self, job: CopyJob, worker: ConnectionThread) -> None:
        try:
            await keep_trying(lambda: job.run(worker, begin_snapshot), self._read_timeout, _is_lock)
        except OperationalError as error:
            if not _is_lock(error):
                raise
            raise ReadLockTimeout(
                f"waited {self._read_timeout:.2f} s to read from {self.location.label}; "
                "another connection holds SQLite's lock exclusively; end its transaction "
                "or raise read_timeout",
                error,
            ) from error


def _is_lock(error: Exception) -> bool:
    return (
        isinstance(error, DBAPIError) and isinstance(error.orig, Exception) and is_lock(error.orig)
    )


def _check_target(target: Path, database: str) -> None:
    """Raise unless ``target`` does not exist or is a closed database other than this one."""
    check_directory(target)
    beside = {f"{database}{side}" for side in (*SIDE_FILES, *TURN_FILES)}
    if _same(target, database) or str(target) in beside:
        raise DatabaseNotUsableError(
            f"{target} is the database itself, or belongs to it; choose another path"
        )
    refuse_side_files(
        target, "it would damage the copy; close that database, or choose another path"
    )
    mode = mode_of(target)
    if mode is not None:
        if not stat.S_ISREG(mode):  # such as /dev/null, which a copy would replace
            raise DatabaseNotUsableError(f"{target} is not a regular file; choose another path")
        # A process that only reads keeps the old file; the work of a writer would be lost.
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
