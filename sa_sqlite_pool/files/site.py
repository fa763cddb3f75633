"""The check that a database's location is usable, before anything there is created or changed.

Inspecting a path waits for its file server, forever if the server is gone. So a thread does it,
once per engine, and the event loop continues. If no server is involved, the loop itself does it.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import final

from ..errors import DatabaseNotUsableError
from ..reporting.events import DoubtfulLocks, Event, MountedAlone, log
from ..system.forks import renew_after_fork
from ..system.mounts import Mount, find_at_hand, find_mount
from ..system.waiting import done_in_time
from ..turn.fair_semaphore import FairSemaphore
from .location import SIDE_FILES, Location

# A server's failover takes a moment, however short the caller's timeout is.
_LEAST_SECONDS = 1.0

_warned: set[tuple[str, str]] = set()  # real paths, each with an event that was logged


@final
class Site:
    """The site of one engine's database. ``mount`` is known after :meth:`inspect`, if at all.

    Call :meth:`inspect` until ``inspected_by_all`` is True.
    """

    def __init__(self, location: Location, journal_mode: str) -> None:
        self.inspected = location.path is None  # in memory there is nothing to inspect
        self.inspected_by_all = (
            self.inspected
        )  # and no task is left in line, which a later one would overtake
        self.mount: Mount | None = None
        self.location = location
        self._journal_mode = journal_mode
        self._line = FairSemaphore(1)
        self.renew_in_child()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        self._looking: Future[None] | None = None  # its thread belongs to the parent process

    @property
    def unreliable(self) -> bool:
        """True if locks and shared memory may fail here, and calls may wait for a server."""
        return self.mount is not None and self.mount.doubt is not None

    async def inspect(self, timeout: float) -> None:
        """Raise :class:`DatabaseNotUsableError` if the database cannot be used as requested.

        Wait in line, and then for the inspection, each at most ``timeout`` seconds, or one second
        if that is longer. After an error, the next call inspects the location again.
        """
        wait = max(timeout, _LEAST_SECONDS)
        permit = await self._line.acquire(wait)
        if permit is None:
            raise self._no_answer(wait)
        try:
            if not self.inspected:
                await self._find_out(wait)
            self.inspected_by_all = not self._line.waiting
        finally:
            self._line.release(permit)

    async def _find_out(self, wait: float) -> None:
        path = self.location.path
        assert path is not None
        if (found := find_at_hand(path)) is None:
            await self._wait_for_look(wait)
            return
        file, mount = found
        self.location.found_at(file)
        self.location.check()
        self._assess(file, mount)

    async def _wait_for_look(self, wait: float) -> None:
        looking = self._looking
        if looking is None or looking.done():
            looking = self._looking = _in_thread(self._look)
        if not await done_in_time(looking, wait):
            raise self._no_answer(wait)
        looking.result()

    def _look(self) -> None:
        location = self.location
        assert location.path is not None
        location.check()  # first, because the first access mounts an automount
        file = location.file
        assert file is not None
        self._assess(file, find_mount(file))

    def _assess(self, file: str, mount: Mount | None) -> None:
        _check_side_files(file)
        location = self.location
        if mount is not None and location.writable:
            if mount.doubt is not None and self._journal_mode == "WAL":
                raise self._refused(mount)
            self._warn(file, mount)
        self.mount, self.inspected = mount, True

    def _refused(self, mount: Mount) -> DatabaseNotUsableError:
        return DatabaseNotUsableError(
            f"{self.location.path} is on {mount}, where WAL is not reliable: {mount.doubt}; keep "
            "it on a local disk, or, if only one machine uses the file, open it with "
            'pragmas={"journal_mode": "TRUNCATE"}. Nothing was changed'
        )

    def _warn(self, file: str, mount: Mount) -> None:
        label = self.location.label
        if mount.doubt is not None:
            _once(
                file,
                DoubtfulLocks(database=label, mount=str(mount)),
                f"{label} is on {mount}: {mount.doubt}. With journal_mode={self._journal_mode} it "
                "works as long as file locks do; use it from one machine only",
            )
        if mount.point == file:
            _once(
                file,
                MountedAlone(database=label, mount_point=mount.point),
                f"{label} is mounted as a single file, at {mount.point}, so its journal or log is "
                "kept elsewhere; when the container is removed, the last commits are lost or the "
                "database is corrupted; mount its directory instead",
            )

    def _no_answer(self, seconds: float) -> DatabaseNotUsableError:
        assert self.location.path is not None
        mount = find_mount(self.location.path)  # not the real path: that would access the files
        return DatabaseNotUsableError(
            f"{self.location.path} has not responded for {seconds:.2f} s; it seems to be on "
            f"{mount or 'a file system of unknown type'}: check its server, or keep the database "
            "on a local disk"
        )


def _check_side_files(file: str) -> None:
    # SQLite opens them whatever their type is, and a FIFO would block its thread forever.
    for side in SIDE_FILES:
        path = f"{file}{side}"
        try:
            mode = os.stat(path).st_mode  # one call: another process may remove it between two
        except OSError:
            continue
        if not stat.S_ISREG(mode):
            raise DatabaseNotUsableError(
                f"{path} is not a regular file, and SQLite keeps the log or journal there; find "
                "out what put it there, and remove it"
            )


def _once(file: str, event: Event, message: str) -> None:
    if (file, event.name) not in _warned:
        _warned.add((file, event.name))
        log(event, "%s", message)


def _in_thread(function: Callable[[], None]) -> Future[None]:
    """Call ``function`` in a daemon thread, for which not even the exit of the process waits."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()  # a waiter that is cancelled must not cancel it

    def run() -> None:
        try:
            function()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=run, name="sa_sqlite_pool-site", daemon=True).start()
    return future
