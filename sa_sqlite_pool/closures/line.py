"""The calls of ``run_read()`` and ``run_write()``, and the line in which they wait."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, final

from ..execution.awaited import Awaited
from ..mutex import new_lock
from ..system.clock import Timer, call_at, call_later, loop_time, time
from ..transactions.locks import NotBegun
from ..transactions.rules import Rules
from .thread_connection import ThreadConnection

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

# Seconds that a cancellation waits for a running function, which is then left to run.
_LET_GO_SECONDS = 1.0


class Locked(NotBegun):
    """A lock has blocked a read, on the connection with ``rules``."""

    def __init__(self, error: Exception, rules: Rules) -> None:
        super().__init__(error)
        self.rules = rules


@final
class Call(Awaited[T]):
    """A function, and its outcome. It waits in its ``line`` until it is taken from there to run.

    ``fn`` is the function that the application has passed. ``deadline`` is the loop time until
    which it waits, ``timeout`` seconds from now, and ``due`` is when its line has to check it: at
    the deadline, or earlier, ``long`` seconds from now. ``began`` and ``taken_at`` are the
    monotonic times at which its wait began, and ended because it was taken to run; ``held_by``
    describes what blocked it after a long wait, and is None if there was none. ``cancelled`` is
    True once no task awaits it any more, ``let_go`` once its task has resumed while it was still
    running.
    """

    cancelled = False
    let_go = False
    held_by: str | None = None
    taken_at: float | None = None
    line: Line | None = None

    def __init__(
        self,
        fn: object,
        body: Callable[[ThreadConnection], T],
        timeout: float,
        long: float,
    ) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._body = body
        self.fn = fn
        now = loop_time(loop)
        self.deadline = now + timeout
        self.due = now + long if long < timeout else self.deadline
        self.began = time.monotonic()
        self.task = asyncio.current_task(loop)
        self.context = contextvars.copy_context()

    # -- in the thread --------------------------------------------------------------------------

    def run(self, here: ThreadConnection) -> None:
        """Call ``body(here)``, and keep its outcome. Run this in ``context``."""
        try:
            self._result = self._body(here)
        except BaseException as error:  # raised again where the call is awaited
            self._error = error

    def fail(self, error: BaseException) -> None:
        """Set its outcome, which is then to be reported. Any thread may call this."""
        self._error = error

    def lose(self, error: BaseException) -> None:
        """Set ``error`` as the outcome of a call that has none. Any thread may call this."""
        if self._error is None and not hasattr(self, "_result"):
            self._error = error

    # -- in the loop ----------------------------------------------------------------------------

    def end(self, error: BaseException) -> None:
        """End a call that has not run, and never will. This is called outside any task."""
        self._error = error
        self.report()

    def _begin_to_stop(self) -> None:
        if self.cancelled:
            return
        self.cancelled = True
        if self.line is not None and self.line.drop(self):
            self._loop.call_soon(self.report)
        else:
            call_later(self._loop, _LET_GO_SECONDS, self._leave_alone)

    def _leave_alone(self) -> None:
        if not self._reported:
            self.let_go = True
            self.report()


class GroupOfCalls(Protocol):
    """The group that runs the calls of a line: see :class:`.group.Group`."""

    def not_in_time(self) -> Exception:
        """Return the error of a call that has waited too long, and count it."""

    def describe_holders(self) -> str:
        """Describe what blocks the calls."""

    def end_if_unwanted(self) -> None:
        """End, since no call waits any more, unless a call runs."""


@final
class Line:
    """The calls that wait for ``group``, in one event loop.

    ``mutex`` protects the calls. Any thread may take them; all else is done in the loop.
    """

    group: GroupOfCalls | None = None

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.mutex = new_lock()
        self.calls: OrderedDict[Call[Any], None] = OrderedDict()
        self._timer: Timer | None = None
        self._timer_at = math.inf  # loop time, before any waiting call is due

    def look_at(self, call: Call[Any]) -> None:
        """Check the calls when ``call``, which was added, is due, or earlier."""
        if call.due < self._timer_at:
            self._set_timer(call.due)

    def drop(self, call: Call[Any]) -> bool:
        """Remove ``call``, and return whether it was there; if so, it will never run."""
        with self.mutex:
            found = self.calls.pop(call, call) is None
        if found and not self.calls and self.group is not None:
            self.group.end_if_unwanted()
        return found

    def fail_all(self, error: Callable[[], BaseException]) -> None:
        """Raise ``error()`` in all calls."""
        for call in self._waiting():
            if self.drop(call):
                call.end(error())

    def fail_first(self, error: BaseException) -> None:
        """Raise ``error`` in the first call, if there is one."""
        for call in self._waiting()[:1]:
            if self.drop(call):
                call.end(error)

    def stop(self) -> None:
        """Cancel the timer of a line in which no call waits any more."""
        self._set_timer(math.inf)

    def _waiting(self) -> list[Call[Any]]:
        with self.mutex:
            return list(self.calls)

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = None, math.inf
        if when < math.inf:
            # Not in the caller's context, which the timer would keep alive.
            context = contextvars.Context()
            self._timer = call_at(self.loop, when, self.look, context=context)
            self._timer_at = when

    def look(self) -> None:
        """Fail the calls that are overdue; note what blocks those that have waited for long."""
        now, next_due, group = loop_time(self.loop), math.inf, self.group
        assert group is not None
        for call in self._waiting():
            if call.deadline <= now:
                if self.drop(call):
                    call.end(group.not_in_time())
                continue
            if call.due <= now:
                call.held_by, call.due = group.describe_holders(), call.deadline
            next_due = min(next_due, call.due)
            if call.held_by is None:  # the calls behind it have not waited for long, either
                break
        self._set_timer(next_due)


def for_another(error: E) -> E:
    """Return a copy of ``error`` for one more task to raise, or ``error`` if it has no copy.

    A class of the application may require other arguments than those that its errors keep, or
    would build its message from them a second time.
    """
    try:
        copied = copy.copy(error)
        copied.args = error.args
        if notes := getattr(error, "__notes__", None):
            copied.__dict__["__notes__"] = list(notes)  # not a shared list, which each would extend
    except Exception:
        return error
    if type(copied) is not type(error):
        return error
    copied.__cause__, copied.__context__ = error.__cause__, error.__context__
    copied.__suppress_context__ = error.__suppress_context__
    return copied.with_traceback(error.__traceback__)
