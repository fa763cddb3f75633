"""Requests for the turn between processes, and the thread that waits in the kernel for them."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import queue
import threading
import weakref
from collections.abc import Callable
from typing import final

from ..compat.main_greenlets import keep_main_greenlet
from ..errors import DatabaseNotUsableError
from ..system.clock import call_later
from ..system.loop_state import call_unless_closed
from .lock_file import LockFile


class Answer(enum.Enum):
    """The outcome of a turn request that did not fail."""

    GRANTED = enum.auto()
    WITHDRAWN = enum.auto()


@final
class FileLockRequest:
    """One request for the turn, and the turn itself once granted, until it is released.

    The first answer counts: from the thread that has acquired the turn, the task that no longer
    wants it, or :meth:`FileTurn.send_away`. The turn is released once, by the first call that
    acquires ``_returned``, at ``released_at`` (by ``clock``). Only :meth:`until_answered` waits:
    any thread, and the garbage collector, may call all other methods.
    """

    __slots__ = (
        "_answers",
        "_clock",
        "_future",
        "_lock",
        "_loop",
        "_returned",
        "owner",
        "released_at",
    )

    def __init__(
        self,
        lock: LockFile | None,
        clock: Callable[[], float],
        owner: object,
        *,
        granted: bool = False,
    ) -> None:
        self.owner = owner
        self._lock = lock
        self._clock = clock
        self.released_at = float("-inf")
        self._answers: dict[str, Answer | Exception] = {}
        if granted:
            self._answers["first"] = Answer.GRANTED
        self._returned = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> None:
        """Enter a ``with request:`` block, which releases the turn at its end."""

    def __exit__(self, *_: object) -> None:
        self.release()

    def prepare(self) -> None:
        """Store the running loop and its future, before another thread sees the request."""
        self._loop = asyncio.get_running_loop()
        self._future = self._loop.create_future()

    async def until_answered(self, timeout: float) -> bool:
        """Wait for the answer, at most ``timeout`` seconds; return whether there is one."""
        assert self._loop is not None
        if self._future.done():  # woken, but not by an answer
            self._future = self._loop.create_future()
        timer = call_later(self._loop, timeout, self._wake)
        try:
            if not self._answers:
                await self._future
        except BaseException:
            self.withdraw()
            raise
        finally:
            timer.cancel()
        return bool(self._answers)

    def answer(self, answer: Answer | Exception) -> Answer | Exception:
        """Set the answer atomically unless there is one already; return the first answer."""
        return self._answers.setdefault("first", answer)

    def grant(self) -> bool:
        """Grant the turn to the task; return False if the task no longer wants it."""
        return self.answer(Answer.GRANTED) is Answer.GRANTED

    def begin(self) -> None:
        """Wake the task, or release the turn if its loop is closed. After :meth:`grant`, in the
        waiting thread.
        """
        if not self._notify():
            self.release()

    def dismiss(self, error: Exception) -> None:
        """Raise ``error`` in the task, unless the task already has the turn."""
        if self.answer(error) is error:
            self._notify()

    def withdraw(self) -> None:
        """Withdraw the request, whether it was granted or not."""
        if self.answer(Answer.WITHDRAWN) is Answer.GRANTED:
            self.release()

    def release(self) -> None:
        """Release the turn. Further calls do nothing."""
        if self._returned.acquire(blocking=False) and self._lock is not None:
            self.released_at = self._clock()
            with contextlib.suppress(OSError):
                self._lock.release()

    def _notify(self) -> bool:
        assert self._loop is not None
        return call_unless_closed(self._loop, self._wake)

    def _wake(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


@final
class WaitingThread:
    """The thread that waits in the kernel for the turn and grants it to one request after another.

    ``turn`` and ``line`` are locks of its own: another task could acquire shared ones beside it.
    It ends on :meth:`stop`, or with ``owner``, after acquiring what it is waiting for at that time.
    """

    def __init__(self, owner: object, turn: LockFile, line: LockFile) -> None:
        self.turn = turn
        self._line = line
        self._requests: queue.SimpleQueue[FileLockRequest | None] = queue.SimpleQueue()
        self._in_line = False
        threading.Thread(
            target=self._run,
            name="sa_sqlite_pool-file-turn",
            daemon=True,  # nothing can stop a thread that waits in flock()
        ).start()
        self.stop = weakref.finalize(owner, self._requests.put, None)
        self.stop.atexit = False

    @property
    def at_rest(self) -> bool:
        """True if the thread waits for a request, not for a lock."""
        return self._requests.empty() and not self._in_line

    def serve(self, request: FileLockRequest) -> None:
        """Queue ``request``, to be granted the turn after earlier requests."""
        self._requests.put(request)

    def _run(self) -> None:
        keep_main_greenlet()
        while self._grant_next():
            pass

    def _grant_next(self) -> bool:
        """Serve one request; return False if there will be no more."""
        request = self._requests.get()
        if request is None:
            return False
        try:
            self._wait_in_line()
        except (OSError, MemoryError, DatabaseNotUsableError) as error:
            request.dismiss(error)
            return True
        else:
            request, going = self._grant_first(request)
        finally:
            with contextlib.suppress(OSError):
                self._line.release()
        if request is not None:
            request.begin()
        else:
            with contextlib.suppress(OSError):  # on failure, the next request gets and releases it
                self.turn.release()
        return going

    def _wait_in_line(self) -> None:
        self._in_line = True
        try:
            self._line.acquire()
            self.turn.acquire()
        finally:
            self._in_line = False  # before the task is told, as it may finish with the file at once

    def _grant_first(self, request: FileLockRequest | None) -> tuple[FileLockRequest | None, bool]:
        """Grant the first request not withdrawn; return it, and whether more may follow."""
        with contextlib.suppress(queue.Empty):
            while request is not None:
                if request.grant():
                    return request, True
                request = self._requests.get_nowait()
            return None, False
        return None, True
