"""Files attached to a reader's connection, which are opened for reading only."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sa_sqlite_pool.sqlite import attaching

SPELLINGS: list[tuple[str, Any]] = [
    ("ATTACH '{file}' AS other", ()),
    ("attach database '{file}' as other;", ()),
    ("-- the archive\nATTACH '{file}' -- here\n AS other /* so far */", ()),
    ("ATTACH '{file}'AS other", ()),
    ('ATTACH "{file}" AS "other"', ()),
    ("ATTACH '{file}' AS 'other'", ()),
    ("ATTACH '{file}' AS [other]", ()),
    ("ATTACH ? AS other", ("{file}",)),
    ("ATTACH ? AS ?", ("{file}", "other")),
    ("ATTACH :file AS :name", {"file": "{file}", "name": "other"}),
    ("ATTACH '{start}' || '{end}' AS other", ()),
    ("ATTACH (SELECT CAST('{file}' AS TEXT)) AS other", ()),
    ("ATTACH 'file:{file}' AS other", ()),
    ("ATTACH 'file:{file}?mode=rwc' AS other", ()),
    ("ATTACH 'file:{file}?mode=ro&mode=rwc' AS other", ()),
    ("ATTACH 'file:{file}?m%6fde=rw' AS other", ()),
    ("ATTACH 'file://{file}?cache=private&mode=rw#fragment' AS other", ()),
    ("ATTACH 'file://localhost{file}' AS other", ()),
    ("ATTACH '{directory}/./other.db' AS other", ()),
]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE others (id); INSERT INTO others VALUES (1);")
    return path


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE items (id)")
    with closing(
        sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    ) as connection:
        yield connection


def filled_in(template: Any, file: Path) -> Any:
    if isinstance(template, dict):
        return {key: filled_in(value, file) for key, value in template.items()}
    if isinstance(template, tuple):
        return tuple(filled_in(value, file) for value in template)
    start, end = str(file)[:5], str(file)[5:]
    return template.format(file=file, start=start, end=end, directory=file.parent)


@pytest.mark.parametrize(("sql", "parameters"), SPELLINGS)
def test_attached_for_reading(
    connection: sqlite3.Connection, other: Path, sql: str, parameters: Any
) -> None:
    """However the statement is spelled, and whatever mode it requests, the file is read-only."""
    wanted = attaching.ask_what(connection, filled_in(sql, other), filled_in(parameters, other))
    assert wanted is not None
    attaching.attach_read_only(connection, wanted)
    assert connection.execute("SELECT id FROM other.others").fetchall() == [(1,)]
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("INSERT INTO other.others VALUES (2)")


@pytest.mark.parametrize(
    "sql",
    [
        "ATTACH 'x.db' AS other KEY 'secret'",
        "ATTACH 'x.db' other",
        "ATTACH AS other",
        "ATTACH 'x.db' AS",
        "ATTACH",
        "DETACH other",
        "SELECT 1 AS one",
        "/*" + 17_000 * " " + "*/ ATTACH 'x.db' AS other",
    ],
)
def test_what_is_not_understood(connection: sqlite3.Connection, sql: str) -> None:
    """SQLite's authorizer refuses such a statement, or SQLite reports what is wrong with it."""
    assert attaching.ask_what(connection, sql, ()) is None


def test_no_file_is_created(connection: sqlite3.Connection, tmp_path: Path) -> None:
    """Attaching a missing file creates none, as SQLite would do on a writable connection."""
    wanted = attaching.ask_what(connection, f"ATTACH '{tmp_path}/new.db' AS new", ())
    assert wanted is not None
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        attaching.attach_read_only(connection, wanted)
    assert not (tmp_path / "new.db").exists()


@pytest.mark.parametrize("file", ["", ":memory:", "file::memory:", "file:x?mode=memory"])
def test_a_database_in_memory_is_the_connections_own(
    connection: sqlite3.Connection, file: str
) -> None:
    """An in-memory database is scratch space, like a temp table, and stays writable."""
    wanted = attaching.ask_what(connection, "ATTACH ? AS scratch", (file,))
    assert wanted is not None
    attaching.attach_read_only(connection, wanted)
    connection.execute("CREATE TABLE scratch.numbers (id)")


def test_what_was_attached_for_writing_is_attached_again(
    connection: sqlite3.Connection, other: Path
) -> None:
    """It is attached again under the same name, quoted if necessary; in-memory databases stay."""
    connection.execute("ATTACH ? AS ?", (str(other), 'the "other" one'))
    connection.execute("ATTACH ':memory:' AS scratch")
    connection.execute("CREATE TABLE scratch.numbers (id)")
    attaching.attach_again_read_only(connection)
    name = '"the ""other"" one"'
    assert connection.execute(f"SELECT id FROM {name}.others").fetchall() == [(1,)]
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute(f"DELETE FROM {name}.others")
    connection.execute("INSERT INTO scratch.numbers VALUES (1)")


@pytest.mark.parametrize("name", ["with space.db", "100%.db", "what?.db", "a#b.db", "ü.db"])
def test_characters_of_uris_in_file_names(
    connection: sqlite3.Connection, tmp_path: Path, name: str
) -> None:
    """Characters that are special in URIs are part of the file's name."""
    file = tmp_path / name
    with closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TABLE others (id)")
    wanted = attaching.ask_what(connection, "ATTACH ? AS other", (str(file),))
    assert wanted is not None
    attaching.attach_read_only(connection, wanted)
    assert connection.execute("SELECT * FROM other.others").fetchall() == []
    assert {entry.name for entry in tmp_path.iterdir()} == {name, "app.db"}
