"""An extension that is loaded on connect: its functions and virtual tables."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from sa_sqlite_pool import ForbiddenWriteError

from .doors import READERS, Application, Door, at_once
from .listeners import in_the_driver

sqlite_vec = pytest.importorskip("sqlite_vec")
pytestmark = pytest.mark.skipif(
    not hasattr(sqlite3.Connection, "enable_load_extension"), reason="sqlite3 loads no extensions"
)


async def load(driver: Any) -> None:
    await driver.enable_load_extension(True)
    await driver.load_extension(sqlite_vec.loadable_path())
    await driver.enable_load_extension(False)


async def enable(driver: Any) -> None:
    await driver.enable_load_extension(True)


async def opened(door: Door) -> Application:
    app = await door.open(listen=in_the_driver(load))
    await app.write("CREATE VIRTUAL TABLE vectors USING vec0(embedding float[2])")
    async with app.transaction() as session:
        insert = text("INSERT INTO vectors (rowid, embedding) VALUES (:id, :vector)")
        await session.execute(insert, [{"id": n, "vector": f"[{n}, 0]"} for n in (1, 2, 3)])
    return app


NEAREST = "SELECT rowid FROM vectors WHERE embedding MATCH '[2.1, 0]' AND k = 2 ORDER BY distance"


async def test_its_functions(reading: Door) -> None:
    """They can be called on all connections."""
    app = await reading.open(listen=in_the_driver(load))
    async with app.enter() as connection:
        asked = await connection.execute(text("SELECT vec_length('[1, 2]')"))
        assert asked.scalar_one() == 2
        each = await connection.execute(text("SELECT value FROM vec_each('[1, 2]')"))
        assert [row.value for row in each] == [1.0, 2.0]


async def test_its_virtual_tables(reading: Door) -> None:
    """The nearest neighbours are read, even while another task writes."""
    app = await opened(reading)

    async def read() -> list[int]:
        async with app.enter() as connection:
            return [row.rowid for row in await connection.execute(text(NEAREST))]

    assert await read() == [2, 3]
    async with app.writer.connect() as writer:
        await writer.execute(text("DELETE FROM vectors WHERE rowid = 1"))
        assert await at_once(read()) == [2, 3]


@pytest.mark.parametrize(
    "reading", [way for way in READERS if way[1] != "auto"], indirect=True, ids="-".join
)
async def test_readers_do_not_write_to_them(reading: Door) -> None:
    """The error says so."""
    app = await opened(reading)
    with pytest.raises(OperationalError) as caught:
        async with app.enter() as connection:
            await connection.execute(text("DELETE FROM vectors"))
    assert isinstance(caught.value.orig, ForbiddenWriteError)


async def test_loaded_by_a_statement(door: Door) -> None:
    """SELECT load_extension(…) works if the application has enabled it."""
    app = await door.open(listen=in_the_driver(enable))
    path = {"path": sqlite_vec.loadable_path()}
    async with app.writer.connect() as connection:
        await connection.execute(text("SELECT load_extension(:path)"), path)
        assert (await connection.execute(text("SELECT vec_length('[1]')"))).scalar_one() == 1


async def test_a_reader_loads_one_by_a_statement(reading: Door) -> None:
    """It works on a reader, as on a stock engine; the file stays read-only, whatever is loaded."""
    app = await reading.open(listen=in_the_driver(enable))
    path = {"path": sqlite_vec.loadable_path()}
    async with app.enter() as connection:
        await connection.execute(text("SELECT load_extension(:path)"), path)
        assert (await connection.execute(text("SELECT vec_length('[1]')"))).scalar_one() == 1
