"""What one task awaits, and what ends in a thread.

It follows the protocol of ``asyncio.Future`` that ``asyncio.Task`` uses
(``_asyncio_future_blocking``, see ``Task.__step`` in CPython's ``asyncio/tasks.py``), for two
reasons:

* **A way back takes one lap of the loop.** A future that is set by ``call_soon_threadsafe``
  schedules its task for one more lap. Here the callback that reports resumes the task. On a busy
  loop, where a lap takes milliseconds, that halves the time of a hop.
* **Clean cancellation.** Cancelling a future wakes its task at once, while the statement still
  runs. Here the task is woken when the thread is done with it.
"""

from __future__ import annotations

import asyncio
import contextvars
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from sys import getprofile, gettrace
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Awaited(ABC, Generic[T]):
    """An outcome, ``_result`` or ``_error``, that :meth:`report` gives to the task that awaits it.

    Subclasses set ``_loop``.
    """

    # Class attributes for what is set once or never.
    _asyncio_future_blocking = False
    _callback: Callable[[Any], object] | None = None
    _cancel_message: object = None
    _cancelled = False
    _context: contextvars.Context | None = None
    _error: BaseException | None = None
    _loop: asyncio.AbstractEventLoop
    _reported = False
    _result: T

    def report(self) -> None:
        """Resume the task, the first time. In the loop, outside any task."""
        if self._reported:  # it has gone on without the outcome
            self._error = None
            return
        self._reported = True
        callback, context = self._callback, self._context
        self._callback = self._context = None
        if callback is None or context is None:
            return
        if self._loop.get_debug() or gettrace() is not None:
            # For asyncio's "Executing <Task …> took", of callbacks only, and for coverage.py, which
            # keeps a stack that is right if a task is always resumed from the same depth.
            self._loop.call_soon(callback, self, context=context)
        else:
            context.run(callback, self)

    def __await__(self) -> Generator[Any, None, T]:
        if not self._reported:
            if getprofile() is None:
                self._asyncio_future_blocking = True
                yield self
            else:
                yield from _Waiter(self)
        result = self.outcome()
        del self._result  # nor are the rows kept
        return result

    # -- what asyncio.Task asks of a future -----------------------------------------------------

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(
        self, callback: Callable[[Any], object], *, context: contextvars.Context | None = None
    ) -> None:
        assert self._callback is None, "it is awaited by one task"
        self._callback = callback
        self._context = contextvars.copy_context() if context is None else context

    def cancel(self, msg: object = None) -> bool:
        """Stop it. True: the task is woken, with ``CancelledError``, when it has stopped."""
        if self._reported:
            return False
        self._cancelled, self._cancel_message = True, msg
        self._begin_to_stop()
        return True

    @abstractmethod
    def _begin_to_stop(self) -> None:
        """Have it end soon, and :meth:`report` called then."""

    def result(self) -> None:
        """Let the task go on to :meth:`outcome`.

        What this raised the task would throw into its coroutine. CPython (``gen_send_ex()``) then
        replaces the context of the error, or of one that was raised for it, by what a coroutine
        further out handles at this moment, such as the failure of an earlier attempt.
        """

    # -------------------------------------------------------------------------------------------

    def outcome(self) -> T:
        """Return or raise it, when it has been reported."""
        if self._cancelled:
            self._error = None
            raise asyncio.CancelledError(*filter(None, [self._cancel_message]))
        if self._error is not None:
            # Not kept: error, traceback, this frame and this object would be a cycle.
            error, self._error = self._error, None
            try:
                raise error
            finally:
                del error
        return self._result


class _Waiter(asyncio.Future[None]):
    """What a task waits for, while a profiler looks on, until the outcome is there.

    pyinstrument takes an await for one where coroutines return, and no function in Python is called
    before the task's context ends. The task calls ``add_done_callback()``, which is in C here.
    """

    def __init__(self, awaited: Awaited[Any]) -> None:
        super().__init__(loop=awaited.get_loop())
        self._awaited = awaited
        awaited.add_done_callback(self._wake, context=contextvars.Context())

    def _wake(self, _: object) -> None:
        self.set_result(None)

    def cancel(self, msg: object = None) -> bool:
        return self._awaited.cancel(msg)
