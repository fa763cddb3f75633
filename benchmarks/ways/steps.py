"""The steps of an operation, defined once for all ways of accessing a database.

An operation is a generator: it yields statements and receives their results, independent of
engines, sessions, drivers and threads. So all contenders do the same, and are checked alike.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ClauseElement, Executable, Select, TextClause
from sqlalchemy.dialects import sqlite

from ..measuring.clocks import WrongAnswerError

_NAMED = sqlite.dialect(paramstyle="named")
"""The parameter style ``:name``, which every driver accepts."""

Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """One statement, for SQLAlchemy as ``core`` and for drivers as ``sql``."""

    core: Executable
    sql: str
    returns_rows: bool

    @classmethod
    def of(cls, core: Executable) -> Statement:
        """Return the statement; a ``text()`` counts as one that returns rows."""
        assert isinstance(core, ClauseElement)
        compiled = core.compile(dialect=_NAMED)
        assert set(compiled.params.values()) <= {None}, "drivers are given no other values"
        return cls(core, str(compiled), isinstance(core, Select | TextClause))


class Run(NamedTuple):
    """Run a statement; the result is all rows, or the number of rows if it returns none."""

    statement: Statement
    parameters: Parameters


class Get(NamedTuple):
    """Call ``session.get()``; the result is the object."""

    entity: type
    key: int


Step = Run | Get
Steps = Generator[Step, Any, None]
Operation = Callable[[int], Steps]
"""The steps of one operation; the number chooses its rows."""


def drive(steps: Steps, execute: Callable[[Step], object]) -> None:
    """Run all of ``steps``, each with ``execute``."""
    try:
        step = next(steps)
        while True:
            step = steps.send(execute(step))
    except StopIteration:
        return


async def drive_async(steps: Steps, execute: Callable[[Step], Awaitable[object]]) -> None:
    """Do the same, awaiting each step."""
    try:
        step = next(steps)
        while True:
            step = steps.send(await execute(step))
    except StopIteration:
        return


def as_run(step: Step) -> Run:
    """Return the step for ways without a session, which cannot get objects."""
    assert isinstance(step, Run)
    return step


def check_rows(found: Sequence[Any], expected: Sequence[tuple[Any, ...]]) -> None:
    """Raise :class:`WrongAnswerError` if the rows differ from those in the file."""
    if [tuple(row) for row in found] != list(expected):
        raise WrongAnswerError("other rows than those asked for")


def check_count(found: int | None, expected: int = 1) -> None:
    """Do the same for a number of rows; if the driver reports None, the books have to tell."""
    if found not in (None, expected):
        raise WrongAnswerError(f"{found} rows changed instead of {expected}")
