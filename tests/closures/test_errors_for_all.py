"""An error that several calls of ``run_write()`` get: a separate one for each, with all details."""

from __future__ import annotations

import asyncio
import builtins
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.closures.line import for_another
from tests.closures.work import add, added, in_line


class RefusedError(Exception):
    """A typical error of an application, for which ``copy.copy()`` raises TypeError."""

    def __init__(self, reason: str, number: int) -> None:
        super().__init__(f"{reason} {number}")


class ChangingError(Exception):
    """An error whose copy has another class."""

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, ("copied",)


class WordyError(Exception):
    """An error that builds its message from its argument."""

    def __init__(self, key: object) -> None:
        super().__init__(f"never {key}")
        self.key = key


def refuse(error: Exception) -> None:
    try:
        raise KeyError("the cause")
    except KeyError as cause:
        raise error from cause


@pytest.mark.parametrize("together", [1, 3])
@pytest.mark.parametrize(
    "error",
    [RefusedError("never", 1), ChangingError("never 1"), ValueError("never 1"), WordyError(1)],
)
async def test_the_error_of_a_checkout(
    db: SQLiteDatabase, path: Path, error: Exception, together: int
) -> None:
    """Whatever its class, it is raised where each call is awaited, with its cause and lines."""
    engine = db.writer_engine.sync_engine

    def listener(*_: object) -> None:
        refuse(error)

    keys = [10 + number for number in range(together)]
    event.listen(engine, "checkout", listener)
    tasks = [asyncio.ensure_future(db.run_write_core(add, key)) for key in keys]
    done, _ = await asyncio.wait(tasks, timeout=30)
    assert len(done) == together
    for task in tasks:
        raised = task.exception()
        assert type(raised) is type(error)
        assert str(raised) == "never 1"
        assert isinstance(raised.__cause__, KeyError)
        assert "refuse(error)" in "".join(traceback.format_exception(raised))
    event.remove(engine, "checkout", listener)
    assert await in_line(db, path, *(partial(db.run_write_core, add, key) for key in keys)) == keys
    assert await added(db) == keys


def test_what_is_noted_on_one() -> None:
    """A note by one task (``add_note()``, since Python 3.11) is not on the others' errors."""
    error: Any = WordyError(1)
    error.__notes__ = ["for all"]
    one, other = for_another(error), for_another(error)
    one.__notes__.append("for one")
    assert other.__notes__ == error.__notes__ == ["for all"]
    assert one.key == other.key == 1


def test_a_group_of_errors() -> None:
    """It is available since Python 3.11."""
    kind = getattr(builtins, "ExceptionGroup", None)
    if kind is not None:
        error = kind("both", [ValueError(1), KeyError(2)])
        copied = for_another(error)
        assert (str(copied), copied.exceptions) == (str(error), error.exceptions)
