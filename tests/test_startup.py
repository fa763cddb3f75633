"""Processes that start at the same moment with a file that does not exist yet."""

from __future__ import annotations

import contextlib
import sqlite3
from contextlib import closing
from multiprocessing import Pipe
from pathlib import Path

import pytest
from sqlalchemy import Connection, inspect
from sqlalchemy.ext.asyncio import AsyncSession

from tests import startup
from tests.children import Child, needs_fork_server
from tests.helpers import Base
from tests.programs import Door, in_another_process

PROCESSES = 20
DOORS = ("facade", "swap-in", "pools")


@needs_fork_server
@pytest.mark.parametrize("round_", range(8))
def test_many_processes_start_on_a_new_file(tmp_path: Path, round_: int) -> None:
    """Each opens it, switches it to WAL, creates the tables and writes; none is refused."""
    path = tmp_path / "new.db"
    gate, ours = Pipe(duplex=False)  # all wait on one pipe; closing its end releases all at once
    with contextlib.ExitStack() as stack, gate, ours:
        children = [
            stack.enter_context(Child(startup.start, DOORS[(n + round_) % len(DOORS)], path, gate))
            for n in range(PROCESSES)
        ]
        assert {child.hear() for child in children} == {"ready"}
        assert not path.exists()
        ours.close()
        seconds = [child.hear() for child in children]
        assert [child.ended() for child in children] == [0] * PROCESSES
    print(f"the last was done after {max(seconds):.2f} s")  # noqa: T201 - for pytest -s
    with closing(sqlite3.connect(path)) as connection:
        asked = "PRAGMA journal_mode", "PRAGMA integrity_check", "SELECT count(*) FROM items"
        answers = [connection.execute(sql).fetchone()[0] for sql in asked]
    assert answers == ["wal", "ok", PROCESSES * startup.ROWS]


@pytest.mark.parametrize("door", DOORS)
async def test_who_looks_for_a_table_may_create_it(path: Path, door: str) -> None:
    """Inspecting the schema begins the write transaction: no other process creates it meanwhile."""

    def look_and_create(connection: Connection) -> None:
        assert not inspect(connection).has_table("items")
        begin = "BEGIN IMMEDIATE"
        assert in_another_process(str(path), begin, timeout=0) == "database is locked"
        Base.metadata.create_all(connection)

    own = Door(door, str(path))
    await own.open()
    async with own.claim() as writer:
        connection = await writer.connection() if isinstance(writer, AsyncSession) else writer
        await connection.run_sync(look_and_create)
    assert in_another_process(str(path), "SELECT count(*) FROM items") == "0"
    await own.close()
