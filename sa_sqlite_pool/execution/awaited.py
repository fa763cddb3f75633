"""An object that one task awaits, and whose outcome is produced in a thread.

It follows the protocol of ``asyncio.Future`` that ``asyncio.Task`` uses
(``_asyncio_future_blocking``, see ``Task.__step`` in CPython's ``asyncio/tasks.py``), for two
reasons:

* **The way back takes one lap of the loop.** A future that is set by ``call_soon_threadsafe``
  schedules its task for one more lap. Here, the reporting callback itself resumes the task. On a
  busy loop, where a lap takes milliseconds, that halves the time of a hop.
* **Clean cancellation.** Cancelling a future wakes its task at once, while the statement still
  runs. Here, the task is woken once the thread has finished the statement.
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
    """An outcome, ``_result`` or ``_error``, that :meth:`report` delivers to the awaiting task.

    Subclasses set ``_loop``.
    """

    # Class attributes for values that are set once or never.
    _asyncio_future_blocking = False
    _callback: Callable[[Any], object] | None = None
    _cancel_message: object = None
    _cancelled = False
    _context: contextvars.Context | None = None
    _error: BaseException | None = None
    _loop: asyncio.AbstractEventLoop
    _reported = False
    _result: T

    def __repr__(self) -> str:
        """Return the state, which the repr of the task that awaits this object shows."""
        return f"<{type(self).__name__} {'done' if self._reported else 'pending'}>"

    def report(self) -> None:
        """Resume the task, on the first call. This is called in the loop, outside any task."""
        if self._reported:  # the task has resumed without the outcome
            self._error = None
            return
        self._reported = True
        callback, context = self._callback, self._context
        self._callback = self._context = None
        if callback is None or context is None:
            return
        if self._loop.get_debug() or gettrace() is not None:
            # For asyncio's "Executing <Task …> took", which covers only callbacks, and for
            # coverage.py, whose stack is correct only if a task always resumes at the same depth.
            self._loop.call_soon(callback, self, context=context)
        else:
            context.run(callback, self)
            del callback  # the error of the task may refer to this frame, and so to the task

    def __await__(self) -> Generator[Any, None, T]:
        if not self._reported:
            if getprofile() is None:
                self._asyncio_future_blocking = True
                yield self
            else:
                yield from _Waiter(self)
        result = self.outcome()
        del self._result  # so that the rows are not kept alive
        return result

    # -- what asyncio.Task expects of a future --------------------------------------------------

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(
        self, callback: Callable[[Any], object], *, context: contextvars.Context | None = None
    ) -> None:
        assert self._callback is None, "only one task may await it"
        self._callback = callback
        self._context = contextvars.copy_context() if context is None else context

    def cancel(self, msg: object = None) -> bool:
        """Stop it; if True is returned, the task is woken with ``CancelledError`` once it stops."""
        if self._reported:
            return False
        self._cancelled, self._cancel_message = True, msg
        self._begin_to_stop()
        return True

    @abstractmethod
    def _begin_to_stop(self) -> None:
        """Make it end soon, and ensure that :meth:`report` is called then."""

    def result(self) -> None:
        """Let the task continue to :meth:`outcome`.

        The task would throw any error raised here into its coroutine. CPython (``gen_send_ex()``)
        then replaces the context of that error, or of one raised because of it, with the error that
        an outer coroutine is handling at that moment, such as the failure of an earlier attempt.
        """

    # -------------------------------------------------------------------------------------------

    def outcome(self) -> T:
        """Return or raise the outcome, after it has been reported."""
        if self._cancelled:
            self._error = None
            raise asyncio.CancelledError(*filter(None, [self._cancel_message]))
        if self._error is not None:
            # Not kept: error, traceback, this frame and this object would form a cycle.
            error, self._error = self._error, None
            try:
                raise error
            finally:
                del error
        return self._result


class _Waiter(asyncio.Future[None]):
    """The future that a task awaits, until the outcome is available, if a profiler is active.

    pyinstrument recognizes an await if coroutines return and no Python function is called before
    the task's context ends. The task calls ``add_done_callback()``, which is in C here.
    """

    def __init__(self, awaited: Awaited[Any]) -> None:
        super().__init__(loop=awaited.get_loop())
        self._awaited = awaited
        awaited.add_done_callback(self._wake, context=contextvars.Context())

    def _wake(self, _: object) -> None:
        self.set_result(None)

    def cancel(self, msg: object = None) -> bool:
        return self._awaited.cancel(msg)
