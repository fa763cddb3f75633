"""What a function passed to ``run_read()`` or ``run_write()`` may be, may do, and may return."""

from __future__ import annotations

import inspect
import types
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from sqlalchemy.engine import FilterResult, Result

from .errors import AwaitableError, ClosureError, a_type

T = TypeVar("T")


def checked(call: Callable[[Any], T], fn: object) -> Callable[[Any], T]:
    """Wrap ``call``, which calls ``fn``, with a check of the value that it returns."""

    def call_and_check(target: Any) -> T:
        result = call(target)
        if type(result) not in _PLAIN:
            _check_result(result, fn)
        return result

    return call_and_check


def assert_plain(fn: object) -> None:
    """Raise :class:`~sa_sqlite_pool.AwaitableError` if ``fn`` is a coroutine function."""
    if _is_coroutine_function(fn):
        raise AwaitableError(
            f"{_name(fn)} is a coroutine function, but it would run where nothing can be awaited: "
            "pass a plain function, or use db.write() or db.read()"
        )


def refused_inside(what: str) -> ClosureError:
    """Return the error for a function that tries to end its transaction, or to begin one."""
    return ClosureError(
        f"{what}: run_write() and run_read() begin the transaction, and end it when the "
        "function returns; use begin_nested() for a part that may be rolled back"
    )


def rolled_back_inside() -> ClosureError:
    """Return the error for a function that continues after its transaction was rolled back."""
    return ClosureError(
        "the transaction was rolled back inside the function: use begin_nested() for the part "
        "that may fail, or let the error propagate, which rolls back everything"
    )


def _is_coroutine_function(fn: object) -> bool:
    if type(fn) is types.FunctionType and not fn.__dict__:  # inspect costs a hundred instructions
        return bool(fn.__code__.co_flags & inspect.CO_COROUTINE)
    return inspect.iscoroutinefunction(fn)


# Results of these types need no check.
_PLAIN = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict})


def _check_result(result: object, fn: object) -> None:
    if isinstance(result, (Awaitable, types.GeneratorType, types.AsyncGeneratorType)):
        if isinstance(result, (types.CoroutineType, types.GeneratorType)):
            result.close()
        raise AwaitableError(
            f"{_name(fn)} returned {a_type(result)}, which would do its work after the "
            "transaction; nothing was kept: pass a plain function that does all of it"
        )
    if isinstance(result, (Result, FilterResult)) and getattr(result, "returns_rows", True):
        raise ClosureError(
            f"{_name(fn)} returned {a_type(result)}, whose rows would be read later; "
            "nothing was kept: read them inside the function, for example with .all(), and return "
            "those"
        )


def _name(fn: object) -> str:
    # A function compiled by mypyc has no __qualname__.
    return str(getattr(fn, "__qualname__", None) or getattr(fn, "__name__", fn))
