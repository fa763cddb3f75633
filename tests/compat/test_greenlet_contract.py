"""What the package relies on in greenlet: one test for each row of ``docs/compat.md``.

``compat/runners.py`` reuses a greenlet after its function has returned, in another task, for
another parent. greenlet documents the parts, but not that they work together.
"""

from __future__ import annotations

import contextvars
import gc
import sys
import threading
import weakref
from typing import Any

import pytest
from greenlet import GreenletExit, getcurrent, greenlet

from tests.helpers import room_in_the_stack

VARIABLE = contextvars.ContextVar("variable", default="nothing")


def loop(*first: Any) -> Any:
    """Switch to the current parent each time, and return the last value sent."""
    sent: Any = first
    while sent != "end":
        sent = getcurrent().parent.switch(sent)
    return sent


def test_a_parent_may_be_changed_while_it_waits() -> None:
    """A suspended greenlet returns to the parent that it has when it switches.

    ``compat/runners.py``: ``take()`` and ``comes_back_here()``. Otherwise, a runner would return to
    the event loop, or greenlet, of its first user.
    """
    runner = greenlet(loop)
    assert runner.switch(1) == (1,)
    seen: list[Any] = []

    def other() -> None:
        runner.parent = getcurrent()
        seen.append(runner.switch("to another"))

    greenlet(other).switch()
    assert seen == ["to another"]
    runner.parent = getcurrent()
    assert runner.switch("end") == "end"
    assert runner.dead


def test_the_context_may_be_changed_while_it_waits() -> None:
    """A suspended greenlet resumes in its ``gr_context``; None is an empty context.

    ``compat/runners.py``: a runner sees, and sets, the context variables of its task.
    """
    seen: list[str] = []

    def look() -> None:
        while True:
            seen.append(VARIABLE.get())
            VARIABLE.set("changed inside")
            getcurrent().parent.switch()

    runner = greenlet(look)
    context = contextvars.copy_context()
    context.run(VARIABLE.set, "the task's")
    runner.gr_context = context
    runner.switch()
    assert context[VARIABLE] == "changed inside"
    runner.gr_context = None
    runner.switch()
    assert seen == ["the task's", "nothing"]


def test_the_running_one_tells_its_context() -> None:
    """``getcurrent().gr_context`` is the running context itself, and not a copy.

    ``compat/runners.py``: variables that a statement's listener sets are the task's afterwards.
    """

    def inside() -> None:
        VARIABLE.set("before")
        found = getcurrent().gr_context
        VARIABLE.set("after")
        assert found[VARIABLE] == "after"

    contextvars.copy_context().run(inside)


def test_errors_are_thrown_in_and_raised_at_the_end() -> None:
    """``throw(*sys.exc_info())`` raises where it waits; the switch raises what is not caught.

    ``compat/greenlets.py``: errors and cancellations of the awaited object are passed in by it.
    """
    seen: list[BaseException] = []

    def catch() -> None:
        try:
            getcurrent().parent.switch()
        except KeyError as error:
            seen.append(error)
            raise ValueError("outside") from error

    runner = greenlet(catch)
    runner.switch()
    original = KeyError("inside")
    try:
        raise original
    except KeyError:
        with pytest.raises(ValueError, match="outside") as caught:
            runner.throw(*sys.exc_info())
    assert seen == [original]
    assert caught.value.__cause__ is original
    assert runner.dead


def test_a_dropped_one_ends() -> None:
    """An unreferenced greenlet is ended by ``GreenletExit``, at once.

    ``compat/runners.py``: an idle runner leaves nothing behind, not even its stack.
    """
    ended: list[str] = []

    def wait() -> None:
        try:
            getcurrent().parent.switch()
        except GreenletExit:
            ended.append("ended")
            raise

    runner = greenlet(wait)
    runner.switch()
    assert ended == []
    del runner
    gc.collect()
    assert ended == ["ended"]


def test_a_subclass_has_attributes_of_its_own() -> None:
    """A subclass can be created without a method as its function, and supports weak references.

    ``compat/runners.py``: ``Runner``. A frame that refers to its own greenlet is never freed.
    """

    class Own(greenlet):  # type: ignore[misc]
        flag = True

        def __init__(self) -> None:
            self.outcome = object()
            super().__init__(loop)

    runner = Own()
    assert runner.switch("x") == ("x",)
    assert runner.flag
    reference = weakref.ref(runner)
    del runner
    gc.collect()
    assert reference() is None


def test_each_thread_has_a_main_greenlet_of_its_own() -> None:
    """``getcurrent()`` outside all greenlets is the main greenlet, which has no parent.

    ``compat/main_greenlets.py`` keeps it until its thread has ended, and asks the thread, because
    the greenlet's ``dead`` does not tell.
    """
    found: list[Any] = []

    def look() -> None:
        found.extend([getcurrent(), getcurrent(), getcurrent().parent])

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    main, same, parent = found
    assert main is same
    assert main is not getcurrent()
    assert parent is None


def test_depth_is_counted_from_where_it_began() -> None:
    """A greenlet that began deep in the stack has as little room when it is used elsewhere.

    ``compat/runners.py``: ``_is_deep()``.
    """

    def rooms() -> Any:
        while True:
            getcurrent().parent.switch(room_in_the_stack())

    def begun(below: int) -> Any:
        if below:
            return begun(below - 1)
        runner = greenlet(rooms)
        runner.switch()
        return runner

    half = sys.getrecursionlimit() // 2
    assert begun(half).switch() < half < begun(0).switch()


def test_the_frame_of_a_parent() -> None:
    """``gr_frame`` of a greenlet that has switched away is its frame, and None while it runs.

    ``turn/whereabouts.py``: the line of the application that called SQLAlchemy. Without it,
    messages name no line.
    """
    assert getcurrent().gr_frame is None
    found: list[Any] = []
    greenlet(lambda: found.append(getcurrent().parent.gr_frame.f_code)).switch()
    assert found == [test_the_frame_of_a_parent.__code__]
