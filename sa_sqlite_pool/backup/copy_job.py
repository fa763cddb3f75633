"""The code shared by backup and restore: a copy in progress, its connections, its checks."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar, final

from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError

from ..errors import ConfigurationError, DatabaseInUseError, DatabaseNotUsableError
from ..execution.connection_thread import ConnectionThread
from ..execution.jobs import OutOfTime
from ..execution.mailbox import Mailbox
from ..files.location import SIDE_FILES, Location
from ..system.atomic_file import AtomicFile
from ..system.clock import time
from ..system.loop_state import call_unless_closed, of_running_loop
from ..turn.permit import Permit
from ..turn.snapshots import Snapshots
from ..turn.whereabouts import caller
from .page_copy import check_integrity

T = TypeVar("T")

Progress = Callable[[int, int], object]
"""``progress(pages_copied, pages_total)``, such as ``print``."""


@final
class CopyJob:
    """A copy in progress: jobs in threads, which other tasks may stop.

    ``what`` describes the copy like a statement; ``detail`` explains what an error means.
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
        """True if its event loop is closed, so that it will never be awaited again."""
        return self._loop.is_closed()

    async def run(
        self,
        worker: ConnectionThread,
        function: Callable[[sqlite3.Connection], T],
        *,
        interruptible: bool = True,
    ) -> T:
        """Call ``function`` in the thread; wrap errors of SQLite and the system in SQLAlchemy's."""
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
        """Return the error that SQLAlchemy raises for an error of the driver."""
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
        """End the copy with ``error``; call this in the loop of the copy."""
        if self._stopped is None:
            self._stopped = error
            if self._worker is not None:
                self._worker.stop_job()

    def end_snapshot(self, worker: ConnectionThread, connection: sqlite3.Connection) -> None:
        """End the read transaction in the thread once it is not needed: the loop may be dead."""
        with contextlib.suppress(sqlite3.Error):  # interrupted: the connection is closed next
            connection.execute("ROLLBACK")
        self._snapshot_is_over()
        self.let_go_if_stranded(worker)

    def let_go_if_stranded(self, worker: ConnectionThread) -> None:
        """Give up the connection at the end of its job if the loop can no longer close it."""
        if self.stranded:
            worker.give_up("its event loop is closed", keep=False, done=lambda _: None)

    @asynccontextmanager
    async def long_read(self, snapshots: Snapshots) -> AsyncIterator[None]:
        """Register this copy, within the block, as a read transaction that was declared long."""
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


def check_progress(progress: object, of: str) -> None:
    if progress is not None and not callable(progress):
        raise ConfigurationError(f"progress must be a function that takes {of}, not {progress!r}")


@asynccontextmanager
async def connected(location: Location, file: str | None) -> AsyncIterator[ConnectionThread]:
    """Open a new connection with a thread of its own for the duration of the block."""
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
    """Return the location of a closed database, for SQLite to open without a lock or a log."""
    return Location(path).with_parameter("mode", "ro").with_parameter("immutable", "1")


async def check_copy(job: CopyJob, atomic: AtomicFile, put: Callable[[], None]) -> None:
    """Verify a completed file, then call ``put()`` in the thread to put it in place."""

    def check(connection: sqlite3.Connection) -> None:
        try:
            with atomic.or_nothing():
                check_integrity(connection, f"the copy for {atomic.final}")
                worker.between_steps()  # a copy whose loop has died is not put in place
        finally:
            job.let_go_if_stranded(worker)

    def put_in_place(connection: sqlite3.Connection) -> None:
        connection.close()
        with atomic.or_nothing():
            put()

    async with connected(closed_file(atomic.path), None) as worker:
        await job.run(worker, check)
        await job.run(worker, put_in_place, interruptible=False)


@final
class ProgressReports:
    """Calls ``progress`` in the loop, and skips steps that are faster than the loop."""

    def __init__(self, progress: Progress | None, job: CopyJob) -> None:
        self._progress = progress
        self._job = job
        self._context = contextvars.copy_context()
        # The thread reports the end of its job there, too, so the last step arrives before it.
        self._mailbox = of_running_loop(Mailbox)
        self._latest: tuple[int, int] | None = None

    def tell(self, copied: int, total: int) -> None:
        """Report a step; called in the thread."""
        if self._progress is None:
            return
        self._latest = copied, total
        self._mailbox.post(self._call)

    def _call(self) -> None:
        latest, self._latest = self._latest, None
        if latest is None or self._progress is None:
            return
        try:
            self._context.run(self._progress, *latest)
        except Exception as error:
            self._progress = None
            self._job.stop(error)


def refuse_side_files(path: Path, why: str) -> None:
    """Raise ``DatabaseInUseError`` if there is a log or journal beside the database ``path``."""
    for side in SIDE_FILES:
        beside = Path(f"{path}{side}")
        # journal_mode=TRUNCATE leaves an empty journal behind.
        if beside.exists() and (side != "-journal" or beside.stat().st_size > 0):
            raise DatabaseInUseError(
                f"{path} is in use, or was not closed: there is {beside.name} beside it, and {why}"
            )
