"""Values at the limits of their types are sent as they are read, or listed by their keys."""

from __future__ import annotations

import ipaddress
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    Column,
    DateTime,
    Dialect,
    Integer,
    Interval,
    MetaData,
    Numeric,
    String,
    Table,
    Time,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeDecorator, TypeEngine

from tests.copying.files import copied, misfits_in, rows_in, rows_of
from tests.postgresql import App


def models_of(*columns: Column[Any]) -> tuple[MetaData, Table]:
    models = MetaData()
    return models, Table("t", models, Column("id", Integer, primary_key=True), *columns)


def file_of(path: Path, table: Table, values: Sequence[Any]) -> Path:
    """Create a file with the values in the column after the id."""
    names = ", ".join(column.name for column in table.columns if column.name != "id")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"CREATE TABLE t (id INTEGER PRIMARY KEY, {names})")
        connection.executemany("INSERT INTO t VALUES (?, ?)", enumerate(values, 1))
    return path


async def misfits_of(
    app: App, path: Path, values: Sequence[Any], type_: TypeEngine[Any], *, nullable: bool = True
) -> dict[int, tuple[str, str]]:
    """Return the ids of the values that do not fit, with the reasons."""
    models, table = models_of(Column("v", type_, nullable=nullable))
    return {
        misfit.key["id"]: (group.kind, misfit.why)
        for group in await misfits_in(file_of(path, table, values), app, models)
        for misfit in group.first
    }


@pytest.mark.parametrize("numeric", [Numeric(20, 2), Numeric(30, 20)])
@pytest.mark.parametrize("others", [[], [7]], ids=["alone", "integer"])
async def test_numbers_are_those_that_are_read(
    app: App, tmp_path: Path, numeric: Numeric[Decimal], others: list[int]
) -> None:
    """They are rounded as SQLAlchemy does, whatever the other values are."""
    models, table = models_of(Column("v", numeric))
    values = [0.5, 0.3, -0.3, -0.0, *others]
    if numeric.scale == 2:
        values += [1234567890123.465, 1234567890123.445, -1234567890123.465]
    path = file_of(tmp_path / "app.db", table, values)
    await copied(path, app, models)
    assert await rows_of(app, table) == rows_in(path, table)


class Digits(TypeDecorator[Decimal]):
    """A number with many digits, stored as text on SQLite."""

    impl = Numeric(30)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(String() if dialect.name == "sqlite" else Numeric(30))

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


async def test_more_digits_than_python_computes_with(app: App, tmp_path: Path) -> None:
    """No number is rounded, whether or not it exceeds the type."""
    values = ["9" * 30, f"-{'9' * 30}", "1" + "0" * 30, "1e400", "NaN"]
    found = await misfits_of(app, tmp_path / "app.db", values, Digits())
    ends, finite = ("range", "out of range for NUMERIC(30, 0)"), ("range", "not a finite number")
    assert found == {3: ends, 4: ends, 5: finite}
    models, table = models_of(Column("v", Digits()))
    await copied(file_of(tmp_path / "fitting.db", table, values[:2]), app, models)
    assert await rows_of(app, table) == [(1, Decimal("9" * 30)), (2, Decimal("-" + "9" * 30))]


async def test_an_integer_keeps_its_digits(app: App, tmp_path: Path) -> None:
    """It keeps all of them, although SQLAlchemy reads it by way of a double."""
    models, table = models_of(Column("v", Numeric(20, 2)))
    path = file_of(tmp_path / "app.db", table, [9_007_199_254_740_993, 0.5])
    await copied(path, app, models)
    assert [value for _, value in await rows_of(app, table)] == [
        *(Decimal("9007199254740993.00"), Decimal("0.50"))
    ]


async def test_the_ends_of_the_calendar(app: App, tmp_path: Path) -> None:
    """Values that exceed them in UTC are listed; values at the limits are copied."""
    values = ["0001-01-01 00:00:00+05:00", "9999-12-31 23:59:59-05:00", "2024-01-01 00:00:00+05:00"]
    found = await misfits_of(app, tmp_path / "app.db", values, DateTime(timezone=True))
    beyond = ("range", "in UTC, it is outside the years 1 to 9999 of Python")
    assert found == {1: beyond, 2: beyond}
    models, table = models_of(Column("v", DateTime(timezone=True)))
    ends = ["0001-01-01 05:00:00+05:00", "9999-12-31 18:59:59-05:00", "0001-01-01 00:00:00.000000"]
    report = await copied(file_of(tmp_path / "ends.db", table, ends), app, models)
    assert report.rows == 3


async def test_zones_of_a_time(app: App, tmp_path: Path) -> None:
    """Python's extend to 24 hours."""
    values = ["10:00:00+16:00", "10:00:00-23:00", "10:00:00+15:59:59"]
    found = await misfits_of(app, tmp_path / "app.db", values, Time(timezone=True))
    assert {key: kind for key, (kind, _) in found.items()} == {1: "range", 2: "range"}


PLACES: dict[str, tuple[TypeEngine[Any], list[Any], set[int]]] = {
    "timestamp": (
        DateTime().with_variant(postgresql.TIMESTAMP(precision=0), "postgresql"),
        ["2020-01-01 01:01:01.600000", "2020-01-01 01:01:01.000000", "2020-01-01 01:01:01"],
        {1},
    ),
    "zoned": (
        DateTime(timezone=True).with_variant(
            postgresql.TIMESTAMP(timezone=True, precision=1), "postgresql"
        ),
        ["2020-01-01 01:01:01.610000", "2020-01-01 01:01:01.600000+01:00"],
        {1},
    ),
    "time": (
        Time().with_variant(postgresql.TIME(precision=3), "postgresql"),
        ["01:01:01.123400", "01:01:01.123000"],
        {1},
    ),
    "interval": (
        Interval(second_precision=3),
        ["1970-01-01 00:00:01.123456", "1970-01-01 00:00:01.123000", "1969-12-31 00:00:01.000001"],
        {1, 3},
    ),
    "hours": (
        Interval().with_variant(postgresql.INTERVAL(fields="DAY TO HOUR"), "postgresql"),
        ["1970-01-02 01:00:00.000000", "1970-01-02 01:01:00.000000"],
        {2},
    ),
}


@pytest.mark.parametrize("name", PLACES)
async def test_places_of_a_second(app: App, tmp_path: Path, name: str) -> None:
    """Values that the server would round are listed; all others are read back as they were sent."""
    type_, values, wrong = PLACES[name]
    found = await misfits_of(app, tmp_path / "app.db", values, type_)
    assert {key: kind for key, (kind, _) in found.items()} == dict.fromkeys(wrong, "places")
    models, table = models_of(Column("v", type_))
    fitting = [value for key, value in enumerate(values, 1) if key not in wrong]
    path = file_of(tmp_path / "fitting.db", table, fitting)
    assert (await copied(path, app, models)).rows == len(fitting)


class Money(TypeDecorator[Decimal]):
    """A text on SQLite, where an empty text is NULL."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        here = dialect.name == "sqlite"
        return dialect.type_descriptor(String() if here else Numeric(30, 10))

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return Decimal(value) if value else None


async def test_a_type_that_reads_null(app: App, tmp_path: Path) -> None:
    """It is listed if the column is NOT NULL, and copied otherwise."""
    values = ["1.5", ""]
    found = await misfits_of(app, tmp_path / "app.db", values, Money(), nullable=False)
    assert found == {2: ("null", "its type reads it as NULL, and the column is NOT NULL")}
    models, table = models_of(Column("v", Money()))
    await copied(tmp_path / "app.db", app, models)
    assert await rows_of(app, table) == [(1, Decimal("1.5")), (2, None)]


DOCUMENTS = [
    "[1e131071, 1e-16383, 0e200000, 12345678901234567890]",
    "{'a': [1e131072]}".replace("'", '"'),
    "[1.5e-16383]",
    "1e99999999999999999999",
    "[" * 200_000 + "]" * 200_000,
    "[" * 400 + '"\\u00e9\\\\n"' + "]" * 400,
    f"[{'9' * 5000}]",
    f"[{'9' * 131_073}]",
]


async def test_documents(app: App, tmp_path: Path) -> None:
    """Numbers outside of NUMERIC's range are listed, and lists nested too deeply for Python."""
    jsonb = JSON().with_variant(postgresql.JSONB(), "postgresql")
    found = await misfits_of(app, tmp_path / "app.db", DOCUMENTS, jsonb)
    deep = ("json", "nested more deeply than Python's json can read")
    assert {key: kind for key, (kind, _) in found.items()} == {
        **dict.fromkeys((2, 3, 4, 8), "range"),
        5: "json",
    }
    assert found[5] == deep
    assert found[2][1] == "a number with 131,073 digits, which PostgreSQL's JSONB cannot store"
    assert await misfits_of(app, tmp_path / "json.db", DOCUMENTS, JSON()) == {5: deep}
    models, table = models_of(Column("v", jsonb))
    fitting = [DOCUMENTS[0], DOCUMENTS[5], DOCUMENTS[6]]
    path = file_of(tmp_path / "fitting.db", table, fitting)
    assert (await copied(path, app, models)).rows == 3


class Address(TypeDecorator[Any]):
    """An object on PostgreSQL, and a text on SQLite."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        here = dialect.name == "sqlite"
        return dialect.type_descriptor(String() if here else postgresql.INET())

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        if dialect.name == "sqlite" and value is not None:
            return object() if value == "none" else ipaddress.ip_address(value)
        return value


async def test_an_object_that_is_its_text(app: App, tmp_path: Path) -> None:
    """It is sent as text; an object without a text of its own is listed."""
    models, table = models_of(Column("v", Address()))
    path = file_of(tmp_path / "app.db", table, ["10.0.0.1", "::1", None])
    await copied(path, app, models)
    found = [str(value).split("/")[0] for _, value in await rows_of(app, table)]
    assert found == ["10.0.0.1", "::1", "None"]
    app.sql("DROP TABLE t")
    wrong = await misfits_of(app, tmp_path / "wrong.db", ["none", "10.0.0.1"], Address())
    assert wrong == {1: ("wrong-type", "an object in a column of INET")}


class Spans(TypeDecorator[Any]):
    """A list of ranges."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        ranges = postgresql.ARRAY(postgresql.INT4RANGE)
        return dialect.type_descriptor(String() if dialect.name == "sqlite" else ranges)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        ends = map(int, value.split())
        return [postgresql.Range(0, end) for end in ends] if dialect.name == "sqlite" else value


async def test_objects_in_an_array(app: App, tmp_path: Path) -> None:
    """Commas within their elements are not separators."""
    models, table = models_of(Column("v", Spans()))
    await copied(file_of(tmp_path / "app.db", table, ["5 6"]), app, models)
    assert app.sql("SELECT v FROM t") == '{"[0,5)","[0,6)"}'
