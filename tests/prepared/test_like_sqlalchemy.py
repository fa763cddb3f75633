"""Prepared reads and ``connection.execute()``: the same rows, and the same errors."""

from __future__ import annotations

import re
import warnings
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Executable, Row, RowMapping, insert
from sqlalchemy.engine import Result
from sqlalchemy.exc import SAWarning

from sa_sqlite_pool import SQLiteDatabase
from tests.prepared.conftest import Ways
from tests.prepared.corpus import CASES, Base, Case, Thing, things

METHODS = {
    "one": lambda result: result.one(),
    "one_or_none": lambda result: result.one_or_none(),
    "first": lambda result: result.first(),
    "all": lambda result: result.all(),
    "mappings": lambda result: result.mappings().all(),
    "scalar": lambda result: result.scalar(),
    "scalar_one": lambda result: result.scalar_one(),
    "scalar_one_or_none": lambda result: result.scalar_one_or_none(),
    "scalars": lambda result: result.scalars().all(),
}


@pytest.fixture(params=["auto", "thread"])
async def db(path: Path, request: pytest.FixtureRequest) -> AsyncIterator[SQLiteDatabase]:
    async with SQLiteDatabase(path, readers=1, placement=request.param) as database:
        async with database.writer_engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(insert(Thing), things())
        yield database


def seen(value: Any, statement: Executable) -> Any:
    """Return the visible parts of a result: types, names, values, and lookups by column."""
    if isinstance(value, (Row, RowMapping)):
        mapping = value._mapping if isinstance(value, Row) else value
        columns = getattr(statement, "selected_columns", ())
        found = [mapping.get(key) for key in (*mapping.keys(), *columns)]
        return type(value), list(value), list(mapping.items()), found
    if isinstance(value, list):
        return [seen(one, statement) for one in value]
    return type(value), value


def told(error: BaseException) -> Any:
    """Return the visible parts of an error, apart from addresses."""
    orig = getattr(error, "orig", None)
    parts = getattr(error, "statement", None), getattr(error, "params", None)
    return type(error), type(orig), re.sub("0x[0-9a-f]+", "0x", f"{error} {parts!r}")


async def by_sqlalchemy(
    db: SQLiteDatabase, statement: Executable, parameters: Mapping[str, Any], method: str
) -> Any:
    async with db.reader_engine.connect() as connection:
        result: Result[Any] = await connection.execute(statement, dict(parameters) or None)
        return METHODS[method](result)


async def outcome(awaitable: Any, statement: Executable) -> Any:
    try:
        return seen(await awaitable, statement)
    except Exception as error:
        return told(error)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_the_same_as_sqlalchemy(db: SQLiteDatabase, case: Case) -> None:
    """The outcome is the same for every statement, method and way of reading."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)
        read = db.prepare(case.statement)
        for method in METHODS:
            for parameters in case.calls:
                expected = await outcome(
                    by_sqlalchemy(db, case.statement, parameters, method), case.statement
                )
                for _ in range(4):  # by SQLAlchemy, in a thread, and then on the loop
                    found = await outcome(getattr(read, method)(**parameters), case.statement)
                    assert found == expected, method


LEFT_TO_SQLALCHEMY = {
    "nothing given",
    "of the wrong type",
    "not for SQLite",
    "no such table",
    "an error of a function",
}
RUN_IN_LINE = {"explain"}


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("db", ["auto"], indirect=True)
async def test_which_way(db: SQLiteDatabase, case: Case, ways: Ways) -> None:
    """Nearly all end up on the loop, so the test above compares that way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)
        read = db.prepare(case.statement)
        for parameters in case.calls:
            for _ in range(4):
                await outcome(read.all(**parameters), case.statement)
    at_once, _, by_sqlalchemy = ways.taken
    if case.name in LEFT_TO_SQLALCHEMY:
        assert at_once == 0
    elif case.name in RUN_IN_LINE:
        assert (at_once, by_sqlalchemy) == (0, 1)
    else:
        assert at_once >= len(case.calls)
        assert by_sqlalchemy == 1
