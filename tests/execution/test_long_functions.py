"""Which functions are known to run long."""

from __future__ import annotations

from functools import partial
from typing import Any

from sa_sqlite_pool.execution.long_functions import LongFunctions


def scan(*_: object) -> None:
    """A function that runs long in these tests."""


def test_long_twice_in_a_row() -> None:
    """One long run proves nothing, two in a row do; a short one in between resets the count."""
    functions = LongFunctions(0.01)
    functions.note(scan, 0.5)
    assert functions.expected(scan) == 0.0
    functions.note(scan, 0.001)
    functions.note(scan, 0.5)
    assert functions.expected(scan) == 0.0
    functions.note(scan, 0.7)
    assert functions.expected(scan) == 0.7


def test_forgotten_after_short_runs() -> None:
    """A function that was long counts as short after sixteen shorter runs."""
    functions = LongFunctions(0.01)
    for _ in range(2):
        functions.note(scan, 0.5)
    for _ in range(15):
        functions.note(scan, 0.001)
        assert functions.expected(scan) == 0.5
    functions.note(scan, 0.001)
    assert functions.expected(scan) == 0.0
    assert not functions.known


def test_shorter_by_and_by() -> None:
    """If its long runs become shorter, the expected time follows."""
    functions = LongFunctions(0.01)
    for _ in range(2):
        functions.note(scan, 0.5)
    for _ in range(16):
        functions.note(scan, 0.02)
    assert functions.expected(scan) == 0.02


def test_the_same_function() -> None:
    """Closures, partial objects and bound methods of one function are the same; others are not."""

    class Report:
        def read(self) -> None: ...

    def closure(value: int) -> Any:
        return lambda _: value

    functions = LongFunctions(0.01)
    for one, same, other in (
        (scan, partial(partial(scan, 1), 2), partial(print)),
        (Report().read, Report().read, scan),
        (closure(1), closure(2), lambda _: 1),
        (len, len, print),
    ):
        functions = LongFunctions(0.01)
        functions.note(one, 0.5)
        functions.note(same, 0.5)
        assert functions.expected(one) == 0.5
        assert functions.expected(other) == 0.0


def test_bounded(monkeypatch: Any) -> None:
    """The function that was noted first is forgotten first."""
    monkeypatch.setattr("sa_sqlite_pool.execution.long_functions._MOST", 2)
    functions = LongFunctions(0.01)
    for function in (scan, len, print):
        functions.note(function, 0.5)
        functions.note(function, 0.5)
    assert [functions.expected(f) for f in (scan, len, print)] == [0.0, 0.5, 0.5]
