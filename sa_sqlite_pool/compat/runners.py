"""Greenlets that are reused.

CPython gives each greenlet a stack of its own: mapped from the system at the first call in it, and
unmapped at its end (``push_chunk`` in CPython's ``Python/pystate.c``), which takes longer than a
short statement. Here a greenlet that has done its work waits for the next, on the same thread.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextvars import Context
from functools import partial
from inspect import isbuiltin
from typing import Any, TypeVar, final

from greenlet import GreenletExit, getcurrent, greenlet

from .main_greenlets import keep_main_greenlet

R = TypeVar("R", bound="Runner")

# The most idle greenlets of each thread, of some 20 KiB each.
MOST_IDLE = 64


@final
class _Outcome:
    """The outcome of the function, which the greenlet switches to its parent with at the end."""

    __slots__ = ("error", "last", "result")

    def __init__(self, last: bool) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.last = last  # the greenlet is not to be used again


@final
class _Idle(threading.local):
    """The idle runners of one class, in each thread. Made at the first use there."""

    def __init__(self) -> None:
        keep_main_greenlet()
        self.runners: list[Any] = []


class Runner(greenlet):  # type: ignore[misc]  # it has no types
    """A greenlet that runs one function after the other.

    ``switch(function, args, kwargs)`` begins. It, and each later ``switch()`` and ``throw()``,
    returns ``outcome`` when the function has ended, and then :meth:`finish` is next; otherwise it
    returns what the function has switched to its parent with.
    """

    dead: bool
    parent: greenlet
    gr_context: Context | None
    idle = _Idle()

    def __init_subclass__(cls) -> None:
        cls.idle = _Idle()

    def __init__(self) -> None:
        self.outcome = _Outcome(last=_is_deep())
        super().__init__(partial(_run, self.outcome))
        # To where it waits for work: its first arguments it would keep for ever.
        _unseen(self.switch)

    @classmethod
    def take(cls: type[R]) -> R:
        """Return an idle runner, or a new one.

        Its parent is the running greenlet, whose context variables it shares.
        """
        runners = cls.idle.runners
        runner: R = runners.pop() if runners else cls()
        current = getcurrent()
        if runner.parent is not current:
            runner.parent = current
        runner.gr_context = current.gr_context
        return runner

    def comes_back_here(self) -> greenlet:
        """Make the running greenlet the parent, to which this one returns; return it.

        A coroutine is not bound to a greenlet: with an eager task factory, a task that is started
        inside one takes its first step there, and the others in that of the event loop.
        """
        current = getcurrent()
        if self.parent is not current:
            self.parent = current
        return current

    def end(self) -> None:
        """End it, where it is idle: it must not be left to the garbage collector.

        The frames of an error refer to it. If it was freed with these, it would run inside the
        collection, on the part of the stack where CPython has the heads of the collector's lists.
        There it frees what the trashcan has put aside in that collection, since greenlet (3.5)
        changes ``trash_delete_nesting`` and not ``trash_delete_later``: CPython (before 3.13)
        writes to the heads, which is to the stack of the greenlet, and the process dies.
        """
        self.comes_back_here()
        _unseen(self.throw)

    def finish(self) -> Any:
        """Return or raise the function's outcome, keep nothing of it, and become idle."""
        # First of all: what is left in one that is idle would be the outcome of its next function.
        outcome = self.outcome
        result, error = outcome.result, outcome.error
        outcome.result = outcome.error = self.gr_context = None
        runners = self.idle.runners
        if not self.dead:
            if outcome.last or len(runners) >= MOST_IDLE:
                self.end()
            else:
                runners.append(self)
        if error is None:
            return result
        context = error.__context__
        try:
            raise error
        finally:
            # What the caller handles at this moment has taken the place of what the function did.
            error.__context__ = context
            del error, context  # with its traceback and this frame it would be a cycle


def _unseen(switch: Callable[[], object]) -> None:
    """Switch to where ``_run()`` begins or ends, unseen by a tracer.

    coverage.py keeps a stack of calls. One that does not end before its caller goes on, and one
    that ends where it has not begun, hide from it which function's lines are executed from there.
    """
    tracer = sys.gettrace()
    if tracer is None or not isbuiltin(sys.settrace):  # pydevd has its own, which complains
        switch()
        return
    sys.settrace(None)
    try:
        switch()
    finally:
        sys.settrace(tracer)


def _is_deep() -> bool:
    """Return whether a greenlet that begins here is too deep in the stack to be used again.

    It counts the frames of where it began (``set_initial_state`` in greenlet's
    ``TPythonState.cpp``), wherever it is used: near the limit, none of its functions could call
    much before a ``RecursionError``.
    """
    most = sys.getrecursionlimit() // 4
    try:
        sys._getframe(most)
    except ValueError:
        pass
    else:
        return True
    # These are frames of the running greenlet, which counts those of others, too.
    waiting = getcurrent().parent
    while waiting is not None:
        frame = waiting.gr_frame
        while frame is not None:
            frame, most = frame.f_back, most - 1
            if most < 0:
                return True
        waiting = waiting.parent
    return False


def _run(outcome: _Outcome) -> _Outcome:
    # Not a method of the greenlet: one whose own frames lead to it is never collected.
    while True:
        function, args, kwargs = getcurrent().parent.switch(outcome)
        try:
            outcome.result = function(*args, **kwargs)
        except GreenletExit:  # the greenlet is garbage
            outcome.last = True
            return outcome
        except BaseException as error:  # raised again where it is awaited
            outcome.error = error
        del function, args, kwargs
