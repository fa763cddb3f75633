"""The raw connection, which an application uses alongside SQLAlchemy's."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.children import Child, needs_fork_server
from tests.doors.raw_programs import works_beside_itself
from tests.doors.turns import turn_taken
from tests.helpers import UPDATE_FIRST, create_items, driver, turn_of, until


@needs_fork_server
@pytest.mark.parametrize("others_write", [False, True])
@pytest.mark.parametrize("cancelled", [False, True])
def test_a_function_in_python_there_stops_nobody(
    path: Path, cancelled: bool, others_write: bool
) -> None:
    """Later statements wait in the connection's thread, not for SQLite's mutex.

    The same applies if one has waited for another process.
    """
    with Child(works_beside_itself, path, cancelled, others_write) as child:
        assert child.hear() == 1


@pytest.mark.needs_thread
async def test_the_next_has_the_connection_for_itself(swap_in: AsyncEngine) -> None:
    """Its statements are classified again, and run on the loop again."""
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


@pytest.mark.parametrize("before", [False, True], ids=["", "begun before"])
async def test_a_transaction_that_sqlalchemy_has_begun_takes_the_turn(
    path: Path, swap_in: AsyncEngine, before: bool
) -> None:
    """The same applies while the application has the raw connection, on which nothing was begun."""
    await create_items(swap_in)

    @event.listens_for(swap_in.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    async with swap_in.connect() as connection:
        async with turn_taken(path):
            if before:
                await connection.execute(text("SELECT 1"))
            assert (await connection.get_raw_connection()).driver_connection is not None
            await connection.execute(text("SELECT 1"))
            writing = asyncio.create_task(_write(connection))
            await until(lambda: turn_of(path).waiting == 1)
        await writing


async def _write(connection: Any) -> None:
    await connection.execute(UPDATE_FIRST)
    await connection.commit()
