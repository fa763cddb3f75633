"""The location of a database."""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from sa_sqlite_pool import SQLiteDatabase, SQLitePool, WriterPool
from sa_sqlite_pool.cli.files import existing_database
from sa_sqlite_pool.doctor import examine
from sa_sqlite_pool.files.location import Location

ODD_NAMES = ["a b.db", "naïve-ß-数据.db", "what?.db", "item#1.db", "100%.db", "a&b=c.db", "a'b.db"]
NOT_UTF8 = pytest.param(
    os.fsdecode(b"caf\xe9.db"),
    marks=pytest.mark.skipif(sys.platform != "linux", reason="names are UTF-8 here"),
    id="not-utf-8",
)


@pytest.mark.parametrize("name", [*ODD_NAMES, NOT_UTF8])
def test_odd_names_survive_the_uri(tmp_path: Path, name: str) -> None:
    """The URI with which readers are opened names the same file."""
    path = tmp_path / name
    location = Location.parse(str(path), uri=False)
    connection = sqlite3.connect(location.sqlite_uri, uri=True)
    connection.execute("CREATE TABLE t (id)")
    connection.close()
    assert path.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert Location.parse(location.sqlite_uri, uri=True).path == str(path)


def test_every_way_to_name_a_file_is_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Serialized writes: relative, linked and URI paths share one turn."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    os.symlink(tmp_path / "real", tmp_path / "link")
    spellings = [
        Location.parse("real/app.db", uri=False),
        Location.parse(str(tmp_path / "real" / ".." / "link" / "app.db"), uri=False),
        Location.parse("file:link/app.db?mode=rwc", uri=True),
        Location.parse(f"file://{tmp_path}/real/app.db", uri=True),
        Location.parse(f"file://localhost{tmp_path}/real/app.db", uri=True),
        Location.parse(f"/{tmp_path}/real/app.db", uri=False),
        Location.parse(f"file:///{tmp_path}/real/app.db", uri=True),
    ]
    assert {spelling.identity for spelling in spellings} == {str(tmp_path / "real" / "app.db")}


@pytest.mark.parametrize("uri", ["file:{}#part", "file:{}?mode=rwc#part", "file:{}#part?mode=ro"])
def test_the_fragment_of_a_uri_is_ignored(tmp_path: Path, uri: str) -> None:
    """The fragment is ignored as SQLite ignores it, even directly after the path."""
    path, name = tmp_path / "app.db", uri.format(tmp_path / "app.db")
    sqlite3.connect(name, uri=True).execute("CREATE TABLE t (id)").connection.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["app.db"]
    location = Location.parse(name, uri=True)
    assert (location.path, location.writable) == (str(path), True)


@pytest.mark.parametrize(
    ("database", "private"),
    [
        (":memory:", True),
        ("", True),
        ("file::memory:", True),
        ("file:name?mode=memory", True),
        ("file:name?mode=memory&cache=shared", False),
        ("file:/name?vfs=memdb", False),
    ],
)
def test_databases_in_memory(database: str, private: bool) -> None:
    """Private databases are distinguished from those that connections share by name."""
    location = Location.parse(database, uri=database.startswith("file:"))
    assert location.path is None
    assert location.private is private


@pytest.mark.parametrize("name", ["app.db", NOT_UTF8])
async def test_a_path_that_begins_with_two_slashes(tmp_path: Path, name: str) -> None:
    """Programs append an absolute path to a URL that already ends with a slash."""
    path = tmp_path / name
    engine = create_async_engine(f"sqlite+aiosqlite:////{path}", poolclass=SQLitePool)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE item (i)"))
    await engine.dispose()
    with closing(sqlite3.connect(path)) as stock:
        assert stock.execute("SELECT count(*) FROM item").fetchone() == (0,)
    async with SQLiteDatabase(f"/{path}") as db, db.read() as session:
        assert (await session.execute(text("SELECT * FROM item"))).all() == []
    assert not examine(path).findings
    async with existing_database(path) as db, db.read() as session:  # as the command does
        assert (await session.execute(text("SELECT * FROM item"))).all() == []


async def test_a_link_that_leads_elsewhere_after_dispose(tmp_path: Path) -> None:
    """The next pool of the engine acquires the turn of the file that it opens."""
    link = tmp_path / "app.db"
    (tmp_path / "first.db").touch()
    (tmp_path / "second.db").touch()
    link.symlink_to("first.db")
    engine = create_async_engine(f"sqlite+aiosqlite:///{link}", poolclass=WriterPool)
    files = []
    for target in ("first.db", "second.db"):
        link.unlink()
        link.symlink_to(target)
        async with engine.connect():
            assert isinstance(engine.pool, WriterPool)
            files.append(engine.pool.database_file.file)
        await engine.dispose()
    assert files == [str(tmp_path / "first.db"), str(tmp_path / "second.db")]


async def test_a_test_that_patches_exists(tmp_path: Path) -> None:
    """The patch is meant for the files of the application, and the package ignores it."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/new.db", poolclass=SQLitePool)
    with patch("pathlib.Path.exists", return_value=True):
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE items (id INTEGER)"))
    await engine.dispose()


@pytest.mark.parametrize(
    "value",
    [
        *("", "0", "00", "1", "2", "01", "256", "-1", "0x1", "0x0", "1x", "9999999999999", " 1"),
        *("on", "ON", "yes", "true", "True", "off", "OFF", "no", "false", "full", "bogus"),
    ],
)
def test_immutable_is_what_sqlite_takes_as_such(tmp_path: Path, value: str) -> None:
    """A file that SQLite writes to has its log and its turn."""
    uri = f"file:{tmp_path / 'app.db'}?immutable={value}"
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        connection.execute("CREATE TABLE items (id)")
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        try:
            connection.execute("INSERT INTO items VALUES (1)")
        except sqlite3.OperationalError:
            is_written = False
        else:
            is_written = True
    assert Location.parse(uri, uri=True).writable is is_written
