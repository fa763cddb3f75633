"""Functions that a compiler has created: their code cannot run in another function.

`tests/real_programs/test_compiled.py` compiles a program with Nuitka, which takes minutes.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

import pytest
from sqlalchemy.util import greenlet_spawn as theirs

from sa_sqlite_pool.compat.greenlets import greenlet_spawn
from sa_sqlite_pool.compat.installation import same_by_another_name
from sa_sqlite_pool.compat.sqlalchemy_asyncio import in_greenlets_used_again
from sa_sqlite_pool.execution.replies import calls_driver


class Compiled:
    """A function like Nuitka's: `isinstance()` treats it as a Python function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        functools.update_wrapper(self, function)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return FunctionType

    def __get__(self, instance: object, _owner: type) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    @property
    def __code__(self) -> Any:
        raise AssertionError("there is none that runs")

    __globals__ = __code__


def test_it_is_taken_for_a_function() -> None:
    compiled: object = Compiled(print)
    assert isinstance(compiled, FunctionType)
    assert type(compiled).__name__ == "Compiled"


def test_what_calls_the_driver_stays_as_it_is() -> None:
    function = Compiled(lambda: 42)
    assert calls_driver(function) is function


def _where_it_runs() -> Any:
    return inspect.currentframe()


def test_what_calls_the_driver_does_so_from_its_module() -> None:
    """The module is that of a stock engine's driver, because of warnings."""
    frame = calls_driver(_where_it_runs)()
    assert frame.f_globals["__name__"] == "aiosqlite.core"


class Base:
    """Has a method that names SQLAlchemy's function, and a compiled one."""

    async def plain(self) -> object:
        return theirs

    @Compiled
    async def compiled(self) -> object:
        return theirs


async def test_compiled_methods_are_left_alone() -> None:
    """They call SQLAlchemy's function, which costs time but has no other effect."""

    @in_greenlets_used_again
    class Derived(Base):
        pass

    assert await Derived().plain() is greenlet_spawn
    assert await Derived().compiled() is theirs
    assert await Base().plain() is theirs


@pytest.mark.parametrize("function", [greenlet_spawn, Compiled(greenlet_spawn)])
async def test_the_function_for_sqlalchemy(function: Any) -> None:
    """It is another object that does the same, and frameworks see it as a coroutine function."""
    same = same_by_another_name(function)
    assert same is not function
    assert inspect.iscoroutinefunction(same)
    assert inspect.signature(same) == inspect.signature(greenlet_spawn)
    assert await same(lambda value, *, more: (value, more), 1, more=2) == (1, 2)
    with pytest.raises(ZeroDivisionError):
        await same(lambda: 1 / 0)
