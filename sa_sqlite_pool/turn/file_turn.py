"""The write turn between processes: ``flock()`` on a file beside the database.

A process that finds the turn taken waits in the kernel, in a thread. There are two lock files:

* ``app.db-turn`` is locked by the process that may write;
* ``app.db-line`` is locked by the process that waits for the turn. The others wait for the line,
  where the kernel keeps their order.

A free turn is acquired without the line, by one system call, and released by another. This is fair
because a process that has just held the turn checks the line before it acquires the turn again: a
process that has been woken needs a moment to run.

    Process A               | Process B                  | Process C
    has the turn            | locks the line,            |
                            | waits for the turn         | waits for the line
    releases the turn       |                            |
    the line is locked:     | has the turn,              |
    waits for the line      | releases the line          | locks the line

These locks provide fairness only; SQLite's own lock, which is taken under them, protects the data.
The system releases them when the process ends, however it ends.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import final

from ..errors import DatabaseNotUsableError
from ..reporting.events import TurnNotLocked, log
from ..system.clock import time
from ..system.forks import renew_after_fork
from ..system.proc_locks import identity, locks, other_processes
from .file_requests import Answer, FileLockRequest, WaitingThread
from .lock_file import LockFile, lock_file

# A process in the kernel's queue is awake some 50 us after the turn becomes free, or a millisecond
# on a busy machine. For that long after its release, a process checks the line first,
_POLITE_SECONDS = 0.001
# if other processes have been seen recently: the check costs two system calls.
_REMEMBER_SECONDS = 1.0

# How long a waiter trusts the first process in line to acquire a free turn,
_PATIENT_SECONDS = 0.5
# and how long if the first in line failed to acquire it the last time.
_IMPATIENT_SECONDS = 0.01

_NO_LOCKS = (
    "SQLite: %s cannot be locked (%s), so the processes that write to this database do not wait in "
    "line: each retries until SQLite lets it write, in no particular order. Put the database on a "
    "local file system, in a writable directory"
)

# No file at all can be opened for now.
_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_TOO_MANY_OPEN = (
    "SQLite: %s cannot be locked now (%s), so the processes that write to this database do not "
    "wait in line until it can be: each retries until SQLite lets it write. Close files, or raise "
    "the limit on open files (ulimit -n)"
)


@final
class FileTurn:
    """The turn between processes. Only one task of a process may request it at a time.

    ``database`` is the real path of the file; ``clock`` returns monotonic seconds.
    """

    def __init__(self, database: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._warned_of: set[str] = set()
        self.renew_in_child()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        """Create new locks: the old ones and the waiting thread belong to the parent process."""
        self._others_at = float("-inf")
        self._patience = _PATIENT_SECONDS
        self._last = FileLockRequest(None, self._clock, None)  # the last one that had the turn
        self._waiting: FileLockRequest | None = None
        self._thread: WaitingThread | None = None
        self._make_locks()

    def _make_locks(self) -> None:
        self._turn, self._line = self._lock("turn"), self._lock("line")

    def _lock(self, name: str) -> LockFile:
        return lock_file(f"{self._database}-{name}", self._database)

    # -- acquiring ------------------------------------------------------------------------------

    def acquire_nowait(self) -> FileLockRequest | None:
        """Acquire the turn if it is free and no other process is due first; else return None."""
        try:
            now = self._clock()
            polite = now - self._last.released_at < _POLITE_SECONDS
            polite = polite and now - self._others_at < _REMEMBER_SECONDS
            if (polite and self._others_wait()) or not self._turn.acquire_nowait():
                self._others_at = now
                return None
        except OSError as error:
            return self._without_locks(error)
        self._last = FileLockRequest(self._turn, self._clock, None, granted=True)
        return self._last

    async def acquire(self, timeout: float, owner: object = None) -> FileLockRequest | None:
        """Wait for the turn in the kernel, at most ``timeout`` seconds; return None on timeout.

        A cancellation leaves nothing taken. ``owner`` is the object on whose behalf the task waits:
        see :meth:`send_away`.
        """
        thread = self._waiting_thread()
        request = FileLockRequest(thread.turn, self._clock, owner)
        request.prepare()
        self._waiting = request
        thread.serve(request)
        del thread  # the traceback of a timeout would keep its files open
        give_up = self._clock() + timeout
        try:
            while not await request.until_answered(min(timeout, self._patience)):
                timeout = give_up - self._clock()
                if timeout <= 0:
                    break
                if passed := self._pass_line():
                    request.withdraw()  # the thread waited in vain: the turn was free
                    return passed
            answer = request.answer(Answer.WITHDRAWN)
        finally:
            if self._waiting is request:  # else its loop has died, and another task is waiting
                self._waiting = None
        if isinstance(answer, OSError):
            return self._without_locks(answer)
        if isinstance(answer, Exception):
            raise answer
        if answer is not Answer.GRANTED:
            return None
        self._last = request
        return request

    def holders(self) -> list[str]:
        """Return the names of other processes that hold the turn, as far as the system shows.

        Reads the system's list of locks.
        """
        return self._locked_by("turn")

    def send_away(self, owner: object, error: Callable[[], Exception]) -> None:
        """Raise ``error()`` in the task that waits on behalf of ``owner``. From any thread."""
        request = self._waiting
        if request is not None and request.owner is owner:
            request.dismiss(error())

    def _pass_line(self) -> FileLockRequest | None:
        """Acquire the turn if it is free although a process is first in line.

        A process that is suspended there (Ctrl-Z, a debugger) would block all others.
        """
        try:
            passed = self._turn.acquire_nowait()
        except (OSError, DatabaseNotUsableError):  # the waiting thread reports the same error
            return None
        self._patience = _IMPATIENT_SECONDS if passed else _PATIENT_SECONDS
        if not passed:
            return None
        self._last = FileLockRequest(self._turn, self._clock, None, granted=True)
        return self._last

    def _others_wait(self) -> bool:
        """Return whether another process waits in line."""
        if not self._line.acquire_nowait():
            return True
        self._line.release()
        return False

    def close(self) -> None:
        """Close the files, which the next request reopens. The caller holds the turn.

        A thread that waits in the kernel although no task wants the turn any more keeps its files:
        it holds the place in line for the next request, and a replacement would be an extra thread.
        """
        self._last = FileLockRequest(None, self._clock, None)
        self._make_locks()
        if self._thread is not None and self._thread.at_rest:
            self._stop_waiting_thread()

    # -- what may be wrong with the files -------------------------------------------------------

    def meet_busy(self) -> None:
        """Record that another connection writes although this process holds the turn.

        Runs in the holder's thread. If the files were removed, the new ones are locked next time.
        """
        if self._turn.replaced or self._line.replaced:
            self._make_locks()
            self._stop_waiting_thread()

    def _without_locks(self, error: OSError) -> FileLockRequest:
        """Return a request without a lock: SQLite's own protects the data, but is not fair."""
        warning = _TOO_MANY_OPEN if error.errno in _OUT_OF_DESCRIPTORS else _NO_LOCKS
        if warning not in self._warned_of and not isinstance(error, FileNotFoundError):
            self._warned_of.add(warning)
            file = f"{self._database}-turn"
            name = os.path.basename(self._database)
            event = TurnNotLocked(database=name, file=file, error=str(error))
            log(event, warning, file, error)
        return FileLockRequest(None, self._clock, None, granted=True)

    def describe(self) -> str:
        """Return the name of the process that holds the turn: ``process 4242 (python)``."""
        return ", ".join(self.holders() or self._locked_by("line")) or "another process"

    def _locked_by(self, name: str) -> list[str]:
        wanted = ("FLOCK", identity(f"{self._database}-{name}"))
        return other_processes(lock.pid for lock in locks() if (lock.family, lock.file) == wanted)

    # -- the thread that waits ------------------------------------------------------------------

    def _waiting_thread(self) -> WaitingThread:
        """Return the waiting thread, which is started on first use and ends with this object."""
        thread = self._thread
        if thread is None:
            thread = WaitingThread(self, self._lock("turn"), self._lock("line"))
            self._thread = thread  # last, since a thread may fail to start if there are too many
        return thread

    def _stop_waiting_thread(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()
