"""What an operation asks of a database, said once for every way of asking.

An operation is a generator: it yields statements and is sent their results, and knows nothing of
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
"""``:name``, which every driver takes."""

Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """One statement, for SQLAlchemy as ``core`` and for drivers as ``sql``."""

    core: Executable
    sql: str
    returns_rows: bool

    @classmethod
    def of(cls, core: Executable) -> Statement:
        """A ``text()`` counts as one that returns rows."""
        assert isinstance(core, ClauseElement)
        compiled = core.compile(dialect=_NAMED)
        assert set(compiled.params.values()) <= {None}, "drivers are given no other values"
        return cls(core, str(compiled), isinstance(core, Select | TextClause))


class Run(NamedTuple):
    """Answered with all rows; with the number of rows where the statement returns none."""

    statement: Statement
    parameters: Parameters


class Get(NamedTuple):
    """``session.get()``; answered with the object."""

    entity: type
    key: int


Step = Run | Get
Steps = Generator[Step, Any, None]
Operation = Callable[[int], Steps]
"""The steps of one operation; the number chooses its rows."""


def drive(steps: Steps, execute: Callable[[Step], object]) -> None:
    """Do all of ``steps``, each by ``execute``."""
    try:
        step = next(steps)
        while True:
            step = steps.send(execute(step))
    except StopIteration:
        return


async def drive_async(steps: Steps, execute: Callable[[Step], Awaitable[object]]) -> None:
    """The same, awaiting each."""
    try:
        step = next(steps)
        while True:
            step = steps.send(await execute(step))
    except StopIteration:
        return


def as_run(step: Step) -> Run:
    """For who has no session, and so cannot get objects."""
    assert isinstance(step, Run)
    return step


def check_rows(found: Sequence[Any], expected: Sequence[tuple[Any, ...]]) -> None:
    """Raises :class:`WrongAnswerError` where other rows came than are in the file."""
    if [tuple(row) for row in found] != list(expected):
        raise WrongAnswerError("other rows than those asked for")


def check_count(found: int | None, expected: int = 1) -> None:
    """The same for a number of rows; None where the driver does not tell, and the books must."""
    if found not in (None, expected):
        raise WrongAnswerError(f"{found} rows changed instead of {expected}")
