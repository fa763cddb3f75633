"""The restore of a backup over a database that is not in use.

The backup is copied *into* the database's file, in one SQLite transaction under an exclusive lock.
So no other connection can open it halfway through; if the transaction fails for any reason,
SQLite's rollback journal restores the old content, after a kill or a power failure at the next
open; and the old log is gone before the first new page is written. A file that is missing, or that
is not a database that SQLite can open, is replaced as a whole.

    Restore                                | Other process
    in use? (Linux lists open files)       | has it open: restore is refused
    locking_mode=EXCLUSIVE                 |
    journal_mode=DELETE: log moved, gone   | has it open in WAL mode: restore is refused
    BEGIN EXCLUSIVE; COMMIT: lock stays    | is in a transaction: restore is refused
    copy, in one transaction               | opens it: "database is locked", for now
    close                                  | continues, with the backup's content
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import URL
from sqlalchemy.exc import OperationalError

from ..compat.without_loop import assert_loop_runs
from ..errors import (
    ConfigurationError,
    DatabaseInUseError,
    DatabaseNotUsableError,
    NotADatabaseError,
)
from ..execution.connection_thread import ConnectionThread
from ..files.location import Location
from ..files.neighbours import tells_users, users
from ..files.urls import locate, parse_url
from ..reporting.events import DamagedDatabaseKept, log
from ..system.atomic_file import AtomicFile
from ..system.regular_files import mode_of
from ..transactions.locks import keep_trying, may_pass
from .backup import DEFAULT_PAGES_PER_STEP
from .copy_job import (
    CopyJob,
    Progress,
    ProgressReports,
    check_copy,
    check_progress,
    closed_file,
    connected,
    real_path,
    refuse_side_files,
)
from .page_copy import (
    check_integrity,
    is_readable,
    set_journal_mode,
    take_alone,
    write_copy,
    write_over,
)

# Closing a connection locks the database for a moment, and a process takes a moment to end.
_MOMENT_SECONDS = 0.5

DAMAGED = ".damaged"


async def restore(
    backup: str | os.PathLike[str],
    database: str | URL | os.PathLike[str],
    *,
    progress: Progress | None = None,
) -> None:
    """Replace the content of ``database`` with ``backup``. No other connection may be open.

    :param backup: a closed database, such as :meth:`SQLiteDatabase.backup` creates
    :param database: a URL or a path, as for :class:`~sa_sqlite_pool.SQLiteDatabase`; it need not
        exist
    :param progress: called in the event loop as ``progress(pages_copied, pages_total)``, as for
        :meth:`SQLiteDatabase.backup`; an exception that it raises ends the restore

    The backup is verified before anything else is touched. Raise
    ``sqlalchemy.exc.OperationalError``, half a second after that at the latest, if the database is
    in use (``orig`` is a :class:`~sa_sqlite_pool.DatabaseInUseError`, which names the processes
    where Linux reports them), or if a file cannot be used; ``sqlalchemy.exc.DatabaseError`` if the
    backup is damaged or is not a database. After an error, a cancellation, a kill or a power
    failure, the database has its old content.

    A ``database`` that SQLite cannot read is kept as ``<name>.damaged``.
    """
    assert_loop_runs()
    check_progress(progress, "the pages copied and their total")
    source, target = real_path(backup), _file_of(database)
    job = CopyJob(f"RESTORE {target.label} FROM {source}", f"{target.label} is as it was")
    try:
        target.check()
        _check_backup(source, target)
    except (sqlite3.Error, OSError) as error:
        raise job.error(error) from error
    async with connected(closed_file(str(source)), None) as reader:
        await job.run(reader, lambda connection: check_integrity(connection, str(source)))
        await _Restoring(job, reader, str(source), target, ProgressReports(progress, job)).replace()


def _file_of(database: str | URL | os.PathLike[str]) -> Location:
    file = locate(parse_url(database)).file
    if file is None:
        raise ConfigurationError(
            "an in-memory database cannot be restored; give the path of a file, or open the backup"
        )
    return Location(file)


def _check_backup(source: Path, target: Location) -> None:
    mode = mode_of(source)
    if mode is None or not stat.S_ISREG(mode):
        raise DatabaseNotUsableError(f"there is no backup at {source}; correct the path")
    if source.stat().st_size == 0:  # SQLite would accept it as an empty database
        raise NotADatabaseError(f"{source} is empty; choose another backup")
    assert target.file is not None
    if os.path.exists(target.file) and source.samefile(target.file):
        raise DatabaseNotUsableError(f"{source} is the database itself; correct the paths")
    refuse_side_files(
        source,
        "the file alone is incomplete; open it once with sqlite3, and close it",
    )


class _Restoring:
    """One restore of a verified backup, which ``reader`` has open."""

    def __init__(
        self,
        job: CopyJob,
        reader: ConnectionThread,
        source: str,
        target: Location,
        told: ProgressReports,
    ) -> None:
        assert target.file is not None
        self._job = job
        self._reader = reader
        self._source = source
        self._target = target
        self._told = told
        self._path = Path(target.file)

    async def replace(self) -> None:
        await keep_trying(self._try, _MOMENT_SECONDS, _is_in_use)

    async def _try(self) -> None:
        await self._job.run(self._reader, lambda _: self._check_unused())
        if not self._path.exists():
            await self._write_new(self._put_where_nothing_is)
        elif await self._is_damaged():
            await self._write_new(self._put_for_damaged)
        else:
            writable = self._target.with_parameter("mode", "rw")
            async with connected(writable, self._target.file) as alone:
                before = await self._job.run(alone, self._take_alone)
                await self._write_over(alone, before)

    def _check_unused(self) -> None:
        if found := users(str(self._path)):
            raise self._in_use(", ".join(found))

    def _in_use(self, who: str) -> DatabaseInUseError:
        return DatabaseInUseError(
            f"{self._path} is in use by {who}; close it there, and restore again"
        )

    async def _is_damaged(self) -> bool:
        """Return whether SQLite cannot read the database, regardless of a log. Changes nothing."""
        if not tells_users:  # opening and closing it would drop locks that this process may hold
            return False
        async with connected(closed_file(str(self._path)), None) as worker:
            return not await self._job.run(worker, is_readable)

    def _take_alone(self, connection: sqlite3.Connection) -> str:
        try:
            before = take_alone(connection)
        except sqlite3.OperationalError as error:
            if not may_pass(error, in_transaction=False):
                raise
            raise self._in_use("another connection, which holds a lock on it") from error
        except sqlite3.DatabaseError as error:
            raise NotADatabaseError(
                f"{self._path} is not a database that SQLite can read ({error}); move it away, "
                "and restore again"
            ) from error
        with contextlib.suppress(FileNotFoundError):  # left behind by a killed process
            os.unlink(f"{self._path}-shm")
        return before

    # -- over a database ------------------------------------------------------------------------

    async def _write_over(self, alone: ConnectionThread, before: str) -> None:
        source = self._reader.connection
        try:
            await self._job.run(
                alone,
                lambda target: write_over(
                    source, target, DEFAULT_PAGES_PER_STEP, alone, self._told.tell
                ),
            )
        except BaseException:
            if before == "wal":
                with contextlib.suppress(sqlite3.Error):
                    await alone.run(lambda target: set_journal_mode(target, before))
            raise

    # -- in the place of a missing database, or one that cannot be opened -----------------------

    async def _write_new(self, put: Callable[[AtomicFile], None]) -> None:
        atomic = AtomicFile(self._path)
        like = str(self._path) if self._path.exists() else self._source

        def copy(connection: sqlite3.Connection) -> None:
            with atomic.or_nothing():
                atomic.create(like=like, source=self._source)
                write_copy(
                    connection, atomic.path, DEFAULT_PAGES_PER_STEP, self._reader, self._told.tell
                )

        try:
            await self._job.run(self._reader, copy)
            await check_copy(self._job, atomic, lambda: put(atomic))
        finally:
            atomic.discard()

    def _put_where_nothing_is(self, atomic: AtomicFile) -> None:
        # A process that creates the database creates its log later, so link() detects it.
        self._refuse_logs()
        try:
            atomic.link()
        except FileExistsError as error:
            raise self._in_use("another process, which has just created it") from error

    def _refuse_logs(self) -> None:
        refuse_side_files(
            self._path, "SQLite would apply that to the backup; move both away, and restore again"
        )

    def _put_for_damaged(self, atomic: AtomicFile) -> None:
        self._refuse_logs()
        self._check_unused()
        kept = f"{self._path}{DAMAGED}"
        try:
            os.link(self._path, kept)
        except FileExistsError as error:
            raise DatabaseNotUsableError(
                f"{self._path} is not a database that SQLite can read, and cannot be kept as "
                f"{kept}, because that file already exists; move that file away, and restore again"
            ) from error
        atomic.replace()
        log(
            DamagedDatabaseKept(database=os.path.basename(self._path), kept_as=kept),
            "%s was not a database that SQLite can read; it is kept as %s",
            self._path,
            kept,
        )


def _is_in_use(error: Exception) -> bool:
    return isinstance(error, OperationalError) and isinstance(error.orig, DatabaseInUseError)
