"""Types of applications and libraries: the value that they bind is sent, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    Interval,
    LargeBinary,
    String,
    Uuid,
    func,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeDecorator, TypeEngine, UserDefinedType

from tests.copying.files import copied, execute, misfits_in, rows_in, rows_of
from tests.copying.test_values import file_of, misfits_of, models_of
from tests.postgresql import App


class Reversed(UserDefinedType[str]):
    """A text that is stored in another form, as encrypted texts are."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "VARCHAR(30)"

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        return lambda value: None if value is None else f"secret:{value[::-1]}"

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        return lambda value: None if value is None else value[7:][::-1]


class Decorated(TypeDecorator[str]):
    """A decorator of that type."""

    impl = Reversed
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else value.lower()


@pytest.mark.parametrize("type_", [Reversed(), Decorated()], ids=["plain", "decorated"])
async def test_a_type_without_another_beneath(
    app: App, tmp_path: Path, type_: TypeEngine[str]
) -> None:
    """The bound value is stored, not the one that is read: an encrypted text remains encrypted."""
    models, table = models_of(Column("v", type_))
    path = file_of(tmp_path / "app.db", table, ["secret:olleh", None])
    await copied(path, app, models)
    assert app.sql("SELECT v FROM t WHERE id = 1") == "secret:olleh"
    assert await rows_of(app, table) == rows_in(path, table) == [(1, "hello"), (2, None)]


class Point(UserDefinedType[Any]):
    """A list of numbers on SQLite, and a type with another form on the server, like vectors."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "POINT"

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        return lambda value: None if value is None else f"({value[0]},{value[1]})"


async def test_a_type_that_only_the_server_has(app: App, tmp_path: Path) -> None:
    """A value is sent in the form that the type produces."""
    models, table = models_of(Column("v", JSON().with_variant(Point(), "postgresql")))
    await copied(file_of(tmp_path / "app.db", table, ["[1, 2.5]", None]), app, models)
    assert app.sql("SELECT v FROM t WHERE id = 1") == "(1,2.5)"
    assert app.sql("SELECT count(*) FROM t WHERE v IS NULL") == "1"


class Pair(UserDefinedType[Any]):
    """A composite type of the server."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "pair"


async def test_a_type_of_fields(app: App, tmp_path: Path) -> None:
    """A value whose fields are all NULL is not itself NULL."""
    app.sql("CREATE TYPE pair AS (a INT, b INT)")
    models, table = models_of(Column("v", String().with_variant(Pair(), "postgresql")))
    path = file_of(tmp_path / "app.db", table, ["(1,2)", "(1,)", "(,)", None])
    assert (await copied(path, app, models)).rows == 4
    assert app.sql("SELECT v FROM t ORDER BY id") == "(1,2)\n(1,)\n(,)"


class Flag(TypeDecorator[bool]):
    """A text on SQLite; any text other than ``t`` is false."""

    impl = Boolean
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        here = dialect.name == "sqlite"
        return dialect.type_descriptor(String(1) if here else Boolean())

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return value == "t" if dialect.name == "sqlite" and value is not None else value


async def test_bytes_that_a_type_would_take(app: App, tmp_path: Path) -> None:
    """SQLAlchemy cannot read them as text either: they are listed, so the copy does not fail."""
    models, table = models_of(Column("v", Flag()))
    path = execute(
        file_of(tmp_path / "app.db", table, ["t", "f", "é"]),
        "INSERT INTO t VALUES (4, CAST(x'ff' AS TEXT)), (5, CAST(x'6100ff' AS TEXT))",
    )
    (group,) = await misfits_in(path, app, models)
    assert (group.kind, [misfit.key["id"] for misfit in group.first]) == ("utf-8", [4, 5])
    execute(path, "DELETE FROM t WHERE id > 3")
    await copied(path, app, models)
    assert await rows_of(app, table) == [(1, True), (2, False), (3, False)]


async def test_identifiers_as_texts(app: App, tmp_path: Path) -> None:
    """A text that is no UUID is listed, because the server would pad it with spaces."""
    type_ = Uuid(native_uuid=False)
    values = ["0" * 32, "A" * 32, "abc", "", "0" * 31, "g" * 32, None]
    found = await misfits_of(app, tmp_path / "app.db", values, type_)
    assert {key: kind for key, (kind, _) in found.items()} == dict.fromkeys(
        (3, 4, 5, 6), "unreadable"
    )
    models, table = models_of(Column("v", type_))
    path = file_of(tmp_path / "fitting.db", table, ["0" * 32, "A" * 32, None])
    await copied(path, app, models)
    assert await rows_of(app, table) == rows_in(path, table)


class Loud(TypeDecorator[str]):
    """A text that SQL converts: into capitals in the database."""

    impl = String
    cache_ok = True

    def bind_expression(self, bindvalue: Any) -> Any:
        return func.upper(bindvalue, type_=self)

    def column_expression(self, column: Any) -> Any:
        return func.lower(column, type_=self)


class Quiet(TypeDecorator[str]):
    """A text of which SQL converts what is read."""

    impl = String
    cache_ok = True

    def column_expression(self, column: Any) -> Any:
        return func.lower(column, type_=self)


class LoudPoint(Point):
    """A type of the server that SQL converts, as those of PostGIS."""

    def bind_expression(self, bindvalue: Any) -> Any:
        return func.point(bindvalue)


REFUSED: dict[str, TypeEngine[Any]] = {
    "there": String().with_variant(Loud(), "postgresql"),
    "here": String().with_variant(Loud(), "sqlite"),
    "beneath none": JSON().with_variant(LoudPoint(), "postgresql"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_type_that_sql_converts(app: App, tmp_path: Path, name: str) -> None:
    """It is named: what is stored in the file is not what would be stored there."""
    models, _ = models_of(Column("v", REFUSED[name]))
    path = tmp_path / "app.db"
    execute(path, "CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, '[1, 2]')")
    (group,) = await misfits_in(path, app, models)
    assert (group.place, group.kind) == ("t.v", "schema")
    assert "bind_expression() or column_expression()" in group.first[0].why


async def test_a_type_that_sql_converts_in_the_same_way(app: App, tmp_path: Path) -> None:
    """What is stored is copied; so it is if SQL converts what the server reads alone."""
    models, table = models_of(
        Column("v", Loud()), Column("w", Quiet().with_variant(String(), "sqlite"))
    )
    path = tmp_path / "app.db"
    execute(
        path, "CREATE TABLE t (id INTEGER PRIMARY KEY, v, w); INSERT INTO t VALUES (1, 'A', 'B')"
    )
    await copied(path, app, models)
    assert app.sql("SELECT v, w FROM t") == "A|B"
    assert await rows_of(app, table) == [(1, "a", "b")]


KEYS = [
    '{"a": "\\u0000", "a": 1}',
    '{"\\u0000": 1}',
    '[[{"a": {"b": "\\ud800"}, "a": 2}]]',
    '{"a": "\\u00e9", "a": {"\\u00e9": ["\\\\u0000"]}}',
]


@pytest.mark.parametrize("binary", [True, False])
async def test_keys_that_are_there_twice(app: App, tmp_path: Path, binary: bool) -> None:
    """The server reads the first key's value, too."""
    type_ = JSON().with_variant(postgresql.JSONB(), "postgresql") if binary else JSON()
    found = await misfits_of(app, tmp_path / "app.db", KEYS, type_)
    kinds = {key: kind for key, (kind, _) in found.items()}
    assert kinds == {1: "json-nul", 2: "json-nul", 3: "json"}
    models, table = models_of(Column("v", type_))
    await copied(file_of(tmp_path / "fitting.db", table, KEYS[3:]), app, models)
    assert await rows_of(app, table) == [(1, json.loads(KEYS[3]))]


# Settings of a database, and a value that each would make it print or read differently.
STYLES: dict[str, tuple[str, TypeEngine[Any], Any]] = {
    "intervalstyle": ("sql_standard", Interval(), "1969-12-31 23:59:59.500000"),
    "datestyle": ("SQL, DMY", DateTime(), "2024-02-01 23:59:59.500000"),
    "timezone": ("Asia/Tokyo", DateTime(timezone=True), "2024-02-01 23:59:59.500000+00:00"),
    "bytea_output": ("escape", LargeBinary(), b"a\0"),
    "extra_float_digits": ("0", Double(), 0.1 + 0.2),
}


@pytest.mark.parametrize("name", STYLES)
async def test_styles_of_the_database(app: App, tmp_path: Path, name: str) -> None:
    """Values are sent and read back in the styles of the copy."""
    style, type_, value = STYLES[name]
    models, table = models_of(Column("v", type_))
    path = file_of(tmp_path / "app.db", table, [value, None])
    app.sql(f"ALTER DATABASE {app.database} SET {name} = {style!r}")
    await copied(path, app, models)
    app.sql(f"ALTER DATABASE {app.database} RESET {name}")
    assert await rows_of(app, table) == rows_in(path, table)
