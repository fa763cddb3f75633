"""The write turn between processes: ``flock()`` on a file beside the database.

A process that finds the turn taken waits in the kernel, in a thread. Two files, each with one lock:

* ``app.db-turn`` is locked by the process that may write;
* ``app.db-line`` by the one that waits for the turn. The others wait for the line, where the kernel
  keeps their order.

Nobody needs the line to take a free turn, so that costs one system call, and another to give it
back. What keeps it fair is that who has just had the turn looks at the line before it takes the
turn again: the process that is woken needs a moment to come.

    Process A               | Process B                  | Process C
    has the turn            | locks the line,            |
                            | waits for the turn         | waits for the line
    gives the turn back     |                            |
    the line is locked:     | has the turn,              |
    waits for the line      | gives the line back        | locks the line

Correctness never hangs on this: SQLite's own lock is taken under it, and who does not get that asks
again. The locks go with the process that has them, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import final

from ..forks import renew_after_fork
from ..process_locks import identity, locks, other_processes
from .lock_file import LockFile, lock_file

logger = logging.getLogger("sa_sqlite_pool")

# A process in the kernel's line is awake some 50 us after the turn is free, or a millisecond on a
# busy machine. Who has just had the turn leaves it that time,
_POLITE_SECONDS = 0.001
# if others have been seen of late. Until then, a look at the line would be two system calls more.
_REMEMBER_SECONDS = 1.0

_NO_LOCKS = (
    "SQLite: %s cannot be locked (%s), so the processes that write to this database do not line "
    "up: each tries again until SQLite lets it, in no order. Put the database on a local file "
    "system where its directory can be written"
)


@final
class Claim:
    """One wish for the turn, and then the right to it, until it is given back.

    It is answered once, by the thread that has got the turn or by the one who withdraws, and given
    back once: who takes ``_answered`` or ``_returned`` first does it. No method waits, so that any
    thread may call it, and the garbage collector.
    """

    __slots__ = ("_answered", "_future", "_lock", "_loop", "_on_end", "_returned", "error", "owner")

    def __init__(self, lock: LockFile | None, on_end: Callable[[], None], owner: object) -> None:
        self.owner = owner
        self.error: Exception | None = None
        self._lock = lock
        self._on_end = on_end
        self._answered = threading.Lock()
        self._returned = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> None:
        """``with claim:`` gives it back in the end."""

    def __exit__(self, *_: object) -> None:
        self.give_back()

    async def answered(self, timeout: float) -> bool:
        """Wait until it is; False if it was not in time, or withdrawn."""
        assert self._loop is not None
        timer = self._loop.call_later(timeout, self._wake)
        try:
            await self._future
        except BaseException:
            self.withdraw()
            raise
        finally:
            timer.cancel()
        return not self.answer()

    def prepare(self) -> None:
        """Before another thread knows of it: who is to be woken."""
        self._loop = asyncio.get_running_loop()
        self._future = self._loop.create_future()

    def answer(self) -> bool:
        """Whether nobody has answered before."""
        return self._answered.acquire(blocking=False)

    def grant(self) -> bool:
        """The turn is the task's now; False if it does not want it any more."""
        if not self.answer():
            return False
        if not self._notify():
            self.give_back()
        return True

    def dismiss(self, error: Exception) -> None:
        """Raise ``error`` in the task, unless it has the turn already."""
        if self.answer():
            self.error = error
            self._notify()

    def withdraw(self) -> None:
        """The task does not want it any more, whether it has it or not."""
        if not self.answer() and self.error is None:
            self.give_back()

    def give_back(self) -> None:
        """The turn is free. More than once does nothing."""
        if self._returned.acquire(blocking=False) and self._lock is not None:
            self._on_end()
            with contextlib.suppress(OSError):
                self._lock.give_back()

    def _notify(self) -> bool:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # the loop is closed: its tasks will never run again
            return False
        return True

    def _wake(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


@final
class FileTurn:
    """A process's way to the turn. Only one task of it may ask at a time.

    ``database`` is the real path of the file; ``clock`` gives monotonic seconds.
    """

    def __init__(self, database: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._warned = False
        self.renew_in_child()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        """The locks, and the thread that waits, are the parent's."""
        self._had_at = self._others_at = float("-inf")
        self._waiting: Claim | None = None
        self._claims: queue.SimpleQueue[Claim | None] | None = None
        self._make_locks()

    def _make_locks(self) -> None:
        self._turn, self._line = self._lock("turn"), self._lock("line")

    def _lock(self, name: str) -> LockFile:
        return lock_file(f"{self._database}-{name}", self._database)

    # -- to have it -----------------------------------------------------------------------------

    def take_nowait(self) -> Claim | None:
        """The turn if it is free, and nobody was here before."""
        try:
            if not self._may_take() or not self._turn.take_nowait():
                self._others_at = self._clock()
                return None
        except OSError as error:
            return self._without_locks(error)
        return self._taken(self._turn)

    async def wait(self, timeout: float, owner: object = None) -> Claim | None:
        """Wait for the turn in the kernel, at most ``timeout`` seconds; None if it did not come.

        A cancellation leaves nothing taken. ``owner`` is for whom the task waits: see
        :meth:`send_away`.
        """
        claims = self._waiting_thread()
        claim = Claim(self._turn_of_thread, self._note_end, owner)
        claim.prepare()
        self._waiting = claim
        claims.put(claim)
        try:
            came = await claim.answered(timeout)
        finally:
            self._waiting = None
        if isinstance(claim.error, OSError):
            return self._without_locks(claim.error)
        if claim.error is not None:
            raise claim.error
        return claim if came else None

    def send_away(self, owner: object, error: Callable[[], Exception]) -> None:
        """Raise ``error()`` in the task that waits for ``owner``. From any thread."""
        claim = self._waiting
        if claim is not None and claim.owner is owner:
            claim.dismiss(error())

    def _may_take(self) -> bool:
        now = self._clock()
        if now - self._had_at >= _POLITE_SECONDS or now - self._others_at >= _REMEMBER_SECONDS:
            return True
        if not self._line.take_nowait():
            return False
        self._line.give_back()
        return True

    def _taken(self, lock: LockFile | None) -> Claim:
        claim = Claim(lock, self._note_end, None)
        claim.answer()
        return claim

    def _note_end(self) -> None:
        self._had_at = self._clock()

    # -- what may be wrong with the files -------------------------------------------------------

    def meet_busy(self) -> None:
        """Somebody else is writing, although the turn is here. In the thread of who has it.

        If the files were removed, others lock other ones. From the next time on, so does this.
        """
        if self._turn.replaced or self._line.replaced:
            self._make_locks()
            self._stop_waiting_thread()

    def _without_locks(self, error: OSError) -> Claim:
        """Go on all the same: SQLite's own lock is enough, but for the order."""
        if not self._warned and not isinstance(error, FileNotFoundError):
            self._warned = True
            logger.warning(_NO_LOCKS, f"{self._database}-turn", error)
        return self._taken(None)

    def describe(self) -> str:
        """``process 4242 (python)``: who has the turn."""
        file = identity(f"{self._database}-turn")
        held = (lock for lock in locks() if lock.family == "FLOCK" and lock.file == file)
        return ", ".join(other_processes(lock.pid for lock in held)) or "another process"

    # -- the thread that waits ------------------------------------------------------------------

    def _waiting_thread(self) -> queue.SimpleQueue[Claim | None]:
        """Where claims are put for it. It ends with this object."""
        if self._claims is None:
            # Locks of its own: on those of the loop, taking what the thread has would succeed.
            self._turn_of_thread, line = self._lock("turn"), self._lock("line")
            claims = self._claims = queue.SimpleQueue()
            self._stop = weakref.finalize(self, claims.put, None)
            self._stop.atexit = False
            threading.Thread(
                target=_wait_for_turns,
                args=(claims, self._turn_of_thread, line),
                name="sa_sqlite_pool-file-turn",
                daemon=True,  # nothing can stop a thread that waits in flock()
            ).start()
        return self._claims

    def _stop_waiting_thread(self) -> None:
        if self._claims is not None:
            self._stop()
            self._claims = None


def _wait_for_turns(
    claims: queue.SimpleQueue[Claim | None], turn: LockFile, line: LockFile
) -> None:
    while _wait_for_turn(claims, turn, line):
        pass


def _wait_for_turn(claims: queue.SimpleQueue[Claim | None], turn: LockFile, line: LockFile) -> bool:
    """Serve one claim; False if there will be no other."""
    claim = claims.get()
    if claim is None:
        return False
    try:
        line.wait()
        turn.wait()
    except OSError as error:
        claim.dismiss(error)
        return True
    else:
        return _hand_over(claim, claims, turn)
    finally:
        with contextlib.suppress(OSError):
            line.give_back()


def _hand_over(
    claim: Claim | None, claims: queue.SimpleQueue[Claim | None], turn: LockFile
) -> bool:
    """Give the turn to the first who still wants it, or back; False if nobody ever will again."""
    try:
        while claim is not None and not claim.grant():
            claim = claims.get_nowait()
    except queue.Empty:
        turn.give_back()
        return True
    if claim is None:
        turn.give_back()
    return claim is not None
