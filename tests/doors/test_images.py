"""``serialize()`` and ``deserialize()`` of an in-memory database, which is actually a file."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from sa_sqlite_pool import SQLiteDatabase, SQLitePool
from tests.conftest import MakeEngine
from tests.helpers import create_items

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="has no images")

IN_MEMORY = "sqlite+aiosqlite://"


def image(page_size: int = 4096, journal_mode: str = "DELETE", path: Any = ":memory:") -> Any:
    """Return the image of a table with two rows."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            f"PRAGMA page_size = {page_size}; PRAGMA journal_mode = {journal_mode};"
            "CREATE TABLE t (i); INSERT INTO t VALUES (1), (2)"
        )
        return plain(connection).serialize()


def plain(connection: sqlite3.Connection) -> Any:
    """Return the connection, untyped, as Python 3.10 lacks its methods."""
    return connection


async def on_raw(connection: AsyncConnection, call: Callable[[Any], Any]) -> Any:
    """Return what ``call`` returns for the ``sqlite3`` connection, in its thread."""
    raw: Any = (await connection.get_raw_connection()).driver_connection
    return await raw._execute(lambda: call(raw._conn))


async def count(engine: AsyncEngine) -> int:
    """Return the number of rows that two connections see side by side, which is the same."""
    sql = text("SELECT count(*) FROM t")
    async with engine.connect() as first, engine.connect() as second:
        found = {(await each.execute(sql)).scalar_one() for each in (first, second)}
    (one,) = found
    return int(one)


@pytest.mark.parametrize("page_size", [512, 4096, 8192])
async def test_an_image_is_for_all_connections(page_size: int, make_engine: MakeEngine) -> None:
    """All connections see the image, not only its own; previous contents are gone."""
    engine = make_engine(SQLitePool, url=IN_MEMORY)
    await create_items(engine)
    async with engine.connect() as connection:
        await on_raw(connection, lambda raw: raw.deserialize(image(page_size)))
    assert await count(engine) == 2
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO t VALUES (3)"))
    assert await count(engine) == 3


async def test_an_image_that_was_taken(make_engine: MakeEngine) -> None:
    """A serialized image can be opened in memory by ``sqlite3`` and loaded into another engine."""
    engine, other = (make_engine(SQLitePool, url=IN_MEMORY) for _ in range(2))
    async with engine.connect() as connection:
        await on_raw(connection, lambda raw: raw.deserialize(image()))
        taken = await on_raw(connection, lambda raw: raw.serialize())
    with closing(sqlite3.connect(":memory:")) as memory:
        plain(memory).deserialize(taken)
        assert memory.execute("SELECT count(*) FROM t").fetchone() == (2,)
    async with other.connect() as connection:
        await on_raw(connection, lambda raw: raw.deserialize(taken))
    assert await count(other) == 2


async def test_an_image_of_a_facade(tmp_path: Any) -> None:
    """``SQLiteDatabase(":memory:")`` also accepts the image of a database in WAL mode."""
    async with SQLiteDatabase(":memory:") as database:
        taken = image(journal_mode="WAL", path=tmp_path / "a.db")
        async with database.writer_engine.connect() as connection:
            await on_raw(connection, lambda raw: raw.deserialize(taken))
        assert await count(database.reader_engine) == 2


async def test_what_is_no_image(make_engine: MakeEngine) -> None:
    """An invalid image is refused, and the previous contents remain."""
    engine = make_engine(SQLitePool, url=IN_MEMORY)
    async with engine.connect() as connection:
        await on_raw(connection, lambda raw: raw.deserialize(image()))
        with pytest.raises(sqlite3.DatabaseError, match="not a database"):
            await on_raw(connection, lambda raw: raw.deserialize(b"no image" * 1000))
    assert await count(engine) == 2


async def test_an_image_waits_as_a_write_does(make_engine: MakeEngine) -> None:
    """If another connection writes for longer, the image is refused, not retried for ever."""
    engine = make_engine(SQLitePool, url=IN_MEMORY, write_timeout=0.1)
    async with engine.connect() as connection, engine.connect() as writing:
        await on_raw(connection, lambda raw: raw.deserialize(image()))
        await writing.execute(text("INSERT INTO t VALUES (3)"))
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            await on_raw(connection, lambda raw: raw.deserialize(image()))
        await writing.commit()
    assert await count(engine) == 3


async def test_a_file_is_left_as_it_is(make_engine: MakeEngine) -> None:
    """Connections to the application's own files do not have this class."""
    engine = make_engine(SQLitePool)
    async with engine.connect() as connection:
        name = await on_raw(connection, lambda raw: type(raw).deserialize.__qualname__)
        assert name == "Connection.deserialize"


async def test_backups_into_and_out_of_it(make_engine: MakeEngine) -> None:
    """SQLite's own backup API works, provided that the page sizes are equal."""
    engine = make_engine(SQLitePool, url=IN_MEMORY)
    with closing(sqlite3.connect(":memory:", check_same_thread=False)) as memory:
        plain(memory).deserialize(image())
        async with engine.connect() as connection:
            await on_raw(connection, memory.backup)
        assert await count(engine) == 2
    with closing(sqlite3.connect(":memory:", check_same_thread=False)) as memory:
        async with engine.connect() as connection:
            await on_raw(connection, lambda raw: raw.backup(memory))
        assert memory.execute("SELECT count(*) FROM t").fetchone() == (2,)
