"""The remains of an engine that is disposed of and still referenced."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sqlalchemy import text

from .doors import STOCK, Door

_DESCRIPTORS = Path("/proc/self/fd")

pytestmark = pytest.mark.skipif(not _DESCRIPTORS.exists(), reason="open files are not listed here")


def open_logs(path: Path) -> list[str]:
    """Return this process's descriptors of a database's log, existing or deleted."""
    return _open_files(f"{path}-wal")


def _open_files(beginning: str) -> list[str]:
    found = [os.path.realpath(descriptor) for descriptor in _DESCRIPTORS.iterdir()]
    return [name for name in found if name.startswith(beginning)]


async def test_no_log_stays_open(door: Door) -> None:
    """The last connection removes the log; a descriptor of it would waste its space."""
    app = await door.open()
    await app.write("CREATE TABLE items (id INTEGER)")
    assert await app.rows("SELECT * FROM items") == []
    assert open_logs(door.path)

    await app.close()

    assert open_logs(door.path) == []


@pytest.mark.parametrize("sql", ["SELECT * FROM items", "INSERT INTO items VALUES (1)"])
async def test_no_file_stays_open_after_a_late_return(door: Door, sql: str) -> None:
    """The same applies if the last connection is checked out while its engine is disposed of.

    No file of the turn between processes stays open, either, which it may still need.
    """
    if door.stock:
        pytest.skip("stock leaves such a connection to the garbage collector")
    app = await door.open()
    await app.write("CREATE TABLE items (id INTEGER)")
    async with app.writer.begin() as connection:
        await connection.execute(text(sql))
        for engine in reversed(app.engines):
            await engine.dispose()

    assert _open_files(str(door.path)) == []


async def test_another_engine_keeps_the_log(door: Door) -> None:
    """The log of a file that another engine has open is kept, and its commits are read."""
    if door.kind == STOCK:
        pytest.skip("its log is nobody's business")
    first, second = await door.open(), await door.open()
    await first.write("CREATE TABLE items (id INTEGER)", "INSERT INTO items VALUES (1)")
    assert await second.value("SELECT count(*) FROM items") == 1

    await first.close()
    await second.write("INSERT INTO items VALUES (2)")

    assert await second.value("SELECT count(*) FROM items") == 2
    assert open_logs(door.path)
