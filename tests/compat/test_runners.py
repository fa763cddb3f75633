"""The greenlets in which closures and SQLAlchemy's functions run."""

from __future__ import annotations

import contextvars
import gc
import subprocess
import sys
import threading
import weakref
from typing import Any

import pytest
from greenlet import GreenletExit, getcurrent, greenlet

from sa_sqlite_pool.compat.runners import MOST_IDLE, Runner
from tests.helpers import end_idle

VARIABLE: contextvars.ContextVar[object] = contextvars.ContextVar("variable", default=None)


class Own(Runner):
    """Runners of these tests."""


class Other(Runner):
    """Other runners of these tests."""


@pytest.fixture(autouse=True)
def none_idle() -> None:
    end_idle(Own)
    end_idle(Other)


def begin(function: Any, *args: Any) -> tuple[Own, Any]:
    runner = Own.take()
    return runner, runner.switch(function, args, {})


def ask(question: object) -> Any:
    """Ask from inside a runner, and return the answer."""
    return getcurrent().parent.switch(question)


def test_asking_and_answering() -> None:
    """This may be repeated until the function ends."""

    def add(first: int) -> int:
        return first + ask("second") + ask("third")  # type: ignore[no-any-return]

    runner, step = begin(add, 1)
    assert step == "second"
    assert runner.switch(2) == "third"
    assert runner not in Own.idle.runners
    assert runner.switch(3) is runner.outcome
    assert runner.finish() == 6
    assert Own.idle.runners == [runner]


def test_an_error_goes_in_and_out() -> None:
    def fail() -> None:
        try:
            ask("anything")
        except KeyError as error:
            raise ValueError("outside") from error

    runner, _ = begin(fail)
    assert runner.throw(KeyError("inside")) is runner.outcome
    with pytest.raises(ValueError, match="outside"):
        runner.finish()
    assert runner.switch(lambda: "fine", (), {}) is runner.outcome
    assert runner.finish() == "fine"


def test_one_that_is_left_alone_ends() -> None:
    """Like any greenlet, it is cleaned up, and nothing of it is kept."""
    cleaned_up: list[str] = []

    def ask_and_clean_up() -> None:
        try:
            ask("anything")
        finally:
            cleaned_up.append("up")

    runner, _ = begin(ask_and_clean_up)
    reference = weakref.ref(runner)
    del runner
    assert cleaned_up == ["up"]
    assert reference() is None


def test_one_that_has_ended_is_not_used_again() -> None:
    def end() -> None:
        raise GreenletExit

    runner, step = begin(end)
    assert step is runner.outcome
    assert runner.finish() is None
    assert Own.idle.runners == []


def test_each_class_has_its_own() -> None:
    """A function that is allowed in one may be refused in another."""
    for cls in (Own, Other, Own, Runner):
        runner = cls.take()
        assert type(runner) is cls
        assert runner.switch(getcurrent, (), {}) is runner.outcome
        assert runner.finish() is runner
    assert (len(Own.idle.runners), len(Other.idle.runners)) == (1, 1)


def test_no_more_wait_than_some() -> None:
    runners = [begin(ask, "anything")[0] for _ in range(MOST_IDLE + 2)]
    for runner in runners:
        assert runner.switch() is runner.outcome
        runner.finish()
    assert Own.idle.runners == runners[:MOST_IDLE]
    assert [runner.dead for runner in runners] == [False] * MOST_IDLE + [True] * 2


def test_one_too_many_ends_where_it_is_finished() -> None:
    """Its former parent, which does not run now, does not matter, and its outcome is unchanged."""

    def wait_and_fail() -> None:
        ask("anything")
        raise KeyError("here")

    others = [begin(ask, "anything")[0] for _ in range(MOST_IDLE)]
    parent = greenlet(lambda: ask(begin(wait_and_fail)[0]))
    runner = parent.switch()
    runner.comes_back_here()
    runner.switch()
    for other in others:
        other.switch()
        other.finish()
    runner.parent = parent
    with pytest.raises(KeyError, match="here"):
        runner.finish()
    assert runner.dead
    assert not parent.dead
    parent.throw()


def test_it_belongs_to_whoever_takes_it() -> None:
    """Its parent and its context variables are those of the greenlet that takes it."""

    def inside() -> tuple[object, object]:
        return getcurrent().parent, VARIABLE.get()

    def take() -> tuple[Any, object]:
        VARIABLE.set("another")
        runner, step = begin(inside)
        assert step is runner.outcome
        return runner, runner.finish()

    first, answer = contextvars.copy_context().run(take)
    assert answer == (getcurrent(), "another")
    outer = greenlet(take)
    again, answer = outer.switch()
    assert again is first
    assert answer == (outer, "another")
    assert begin(inside)[0].finish() == (getcurrent(), None)


def test_one_in_the_other() -> None:
    """A function in a runner may take another one, which returns to it."""

    def inner() -> object:
        return ask("inner")

    def outer() -> object:
        runner, step = begin(inner)
        assert step == "inner"
        assert runner.switch(ask("outer")) is runner.outcome
        return runner.finish()

    runner, step = begin(outer)
    assert step == "outer"
    assert runner.switch("answer") is runner.outcome
    assert runner.finish() == "answer"
    assert len(Own.idle.runners) == 2


def test_none_is_left_to_the_garbage_collector() -> None:
    """It would run where the collector's lists are on the stack (``Runner.end()``)."""
    command = [sys.executable, "-m", "tests.compat.collected_runners"]
    subprocess.run(command, timeout=60, check=True)


class Thing:
    """An object that supports weak references."""


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_kept(fails: bool) -> None:
    """No argument, result, error or context variable is kept, and no cycle is left."""

    def function(thing: Thing, *, more: Thing) -> Thing:
        VARIABLE.set(thing)
        if fails:
            raise ValueError(thing, more)
        return thing

    def use() -> tuple[Own, weakref.ref[Thing]]:
        thing = Thing()
        runner = Own.take()
        runner.switch(function, (thing,), {"more": thing})
        try:
            assert runner.finish() is thing
        except ValueError:
            assert fails
        return runner, weakref.ref(thing)

    gc.disable()
    try:
        runner, reference = contextvars.Context().run(use)
        assert reference() is None
        assert sys.getrefcount(runner) <= 3  # this frame, its argument, and the idle runners
    finally:
        gc.enable()


def test_those_of_a_thread_end_with_it() -> None:
    used: list[weakref.ref[Any]] = []

    def run() -> None:
        runners = [begin(ask, "anything")[0] for _ in range(3)]
        used.extend(map(weakref.ref, runners))
        for runner in runners:
            assert runner.switch() is runner.outcome
            runner.finish()
        assert Own.idle.runners == runners

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    gc.collect()
    assert [reference() for reference in used] == [None] * 3
    assert Own.idle.runners == []
