"""The raw connection, which an application uses beside SQLAlchemy's."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.children import Child, needs_fork_server
from tests.doors.raw_programs import works_beside_itself
from tests.helpers import create_items, driver


@needs_fork_server
@pytest.mark.parametrize("others_write", [False, True])
@pytest.mark.parametrize("cancelled", [False, True])
def test_a_function_in_python_there_stops_nobody(
    path: Path, cancelled: bool, others_write: bool
) -> None:
    """What comes meanwhile waits in the connection's thread, not for SQLite's mutex.

    Also where the thread that waits for another process would have run it at once.
    """
    with Child(works_beside_itself, path, cancelled, others_write) as child:
        assert child.hear() == 1


@pytest.mark.needs_thread
async def test_the_next_has_the_connection_for_itself(swap_in: AsyncEngine) -> None:
    """Its statements are learned anew, and run on the loop again."""
    await create_items(swap_in)
    async with swap_in.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        assert not (await driver(connection)).worker.may_run_inline
    async with swap_in.connect() as connection:
        worker = (await driver(connection)).worker
        assert worker.aiosqlite_connection is raw
        for _ in range(3):
            await connection.execute(text("SELECT 1"))
        before = worker.hops
        await connection.execute(text("SELECT 1"))
        assert worker.hops == before
