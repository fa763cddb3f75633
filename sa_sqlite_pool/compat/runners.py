"""Greenlets that are reused.

CPython gives each greenlet a stack of its own, mapped at the first call in it and unmapped when it
ends (``push_chunk`` in CPython's ``Python/pystate.c``), which takes longer than a short statement.
Here a greenlet that has finished a function waits for the next one, in the same thread.
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

# The most idle greenlets in each thread, at some 20 KiB each.
MOST_IDLE = 64


@final
class _Outcome:
    """The outcome of the function, which the greenlet passes to its parent at the end."""

    __slots__ = ("error", "last", "result")

    def __init__(self, last: bool) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.last = last  # the greenlet must not be reused


@final
class _Idle(threading.local):
    """The idle runners of one class, in each thread. Created at the first use there."""

    def __init__(self) -> None:
        keep_main_greenlet()
        self.runners: list[Any] = []


class Runner(greenlet):  # type: ignore[misc]  # it has no types
    """A greenlet that runs one function after another.

    ``switch(function, args, kwargs)`` starts a function. This call, and each later ``switch()`` and
    ``throw()``, returns ``outcome`` once the function has ended; call :meth:`finish` then.
    Otherwise it returns what the function has passed to its parent.
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
        # Run it up to its wait for work: it would keep its first arguments for ever.
        _unseen(self.switch)

    @classmethod
    def take(cls: type[R]) -> R:
        """Return an idle runner, or a new one.

        Its parent is the running greenlet, with which it shares its context variables.
        """
        runners = cls.idle.runners
        runner: R = runners.pop() if runners else cls()
        current = getcurrent()
        if runner.parent is not current:
            runner.parent = current
        runner.gr_context = current.gr_context
        return runner

    def comes_back_here(self) -> greenlet:
        """Make the running greenlet the parent, to which this one switches back; return it.

        A coroutine is not bound to a greenlet: with an eager task factory, a task that is started
        in a greenlet takes its first step there, and all others in that of the event loop.
        """
        current = getcurrent()
        if self.parent is not current:
            self.parent = current
        return current

    def end(self) -> None:
        """End the idle greenlet, which must not be left to the garbage collector.

        The frames of an error refer to it. If it was freed with them, it would run during the
        collection, on the part of the stack where CPython has the heads of the collector's lists.
        There it frees the objects the trashcan has deferred in that collection, since greenlet
        (3.5) changes ``trash_delete_nesting`` but not ``trash_delete_later``: CPython (before 3.13)
        writes to the heads, and thus to the stack of the greenlet, and the process crashes.
        """
        self.comes_back_here()
        _unseen(self.throw)

    def finish(self) -> Any:
        """Return or raise the function's outcome, discard it, and make the runner idle."""
        # First clear the outcome: a leftover in an idle runner would be that of its next function.
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
            # `raise` has replaced the function's own context with the error the caller handles now.
            error.__context__ = context
            del error, context  # would form a cycle with the traceback and this frame


def _unseen(switch: Callable[[], object]) -> None:
    """Switch to where ``_run()`` begins or ends, unseen by a tracer.

    coverage.py keeps a stack of calls. A call that has not ended when its caller continues, or one
    that ends where it did not begin, makes it lose track of the function being executed.
    """
    tracer = sys.gettrace()
    if tracer is None or not isbuiltin(sys.settrace):  # pydevd has its own settrace, which warns
        switch()
        return
    sys.settrace(None)
    try:
        switch()
    finally:
        sys.settrace(tracer)


def _is_deep() -> bool:
    """Return whether a greenlet started here would be too deep in the stack to be reused.

    It counts the frames of the place where it started (``set_initial_state`` in greenlet's
    ``TPythonState.cpp``), wherever it is used: near the limit, its functions could make few calls
    before a ``RecursionError``.
    """
    most = sys.getrecursionlimit() // 4
    try:
        sys._getframe(most)
    except ValueError:
        pass
    else:
        return True
    # Those are the frames of the running greenlet, whose depth includes those of its parents, too.
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
    # Not a method of the greenlet: a greenlet whose own frames refer to it is never collected.
    while True:
        function, args, kwargs = getcurrent().parent.switch(outcome)
        try:
            outcome.result = function(*args, **kwargs)
        except GreenletExit:  # the greenlet is garbage
            outcome.last = True
            return outcome
        except BaseException as error:  # re-raised where it is awaited
            outcome.error = error
        del function, args, kwargs
