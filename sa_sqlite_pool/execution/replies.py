"""The reply to a statement, and how a statement is executed at once, in any thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import update_wrapper
from types import FunctionType
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")

Parameters = Sequence[Any] | Mapping[str, Any]
Row = tuple[Any, ...]


class Reply(NamedTuple):
    """Everything that a finished statement leaves behind."""

    rows: list[Row]
    description: Any
    rowcount: int
    lastrowid: int | None


NO_REPLY: Final = Reply([], None, -1, None)
"""The reply to a statement that returns nothing."""

Execute = Callable[[sqlite3.Connection, str, Any], Reply]
"""A function that executes a text with its parameters, in the thread of the connection."""


def calls_driver(function: Callable[P, T]) -> Callable[P, T]:
    """Make ``sqlite3`` warn as if ``aiosqlite.core`` called it, and not ``function``.

    A stock engine's warnings name that module, and so do applications' filters, for example for
    "The default datetime adapter is deprecated" since Python 3.12. A warning takes the name from
    the globals of the frame that it points to. A function that is compiled to C (for example by
    Nuitka) has no code that could run with other globals, and is returned unchanged.
    """
    if type(function) is not FunctionType:
        return function
    names = {**function.__globals__, "__name__": "aiosqlite.core"}
    same = FunctionType(
        function.__code__, names, argdefs=function.__defaults__, closure=function.__closure__
    )
    return cast(Callable[P, T], update_wrapper(same, function))


_new = tuple.__new__


@calls_driver
def execute_at_once(connection: sqlite3.Connection, sql: str, parameters: Parameters) -> Reply:
    """Execute ``sql``, and fetch all rows."""
    # Not ``connection.execute()``, which bypasses the cursors of a tracing proxy.
    cursor = connection.cursor()
    try:
        cursor.execute(sql, parameters)
        description = cursor.description
        rows = cursor.fetchall() if description else []
        # A NamedTuple's own constructor is written in Python.
        return _new(Reply, (rows, description, cursor.rowcount, cursor.lastrowid))
    finally:
        cursor.close()
