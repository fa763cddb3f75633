"""Raw connections that are left to the application, which does not close them."""

from __future__ import annotations

import gc
import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from sa_sqlite_pool import SQLitePool
from tests.conftest import MakeEngine
from tests.helpers import amounts, create_items, until, until_free


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("detached", [False, True])
async def test_a_raw_connection_that_nothing_closes(
    path: Path, make_engine: MakeEngine, detached: bool, streams: bool
) -> None:
    """Once unreferenced, it is closed with its transaction, and everything is freed.

    ``invalidate()`` closes a connection, but drops one that was detached from its pool. The thread
    keeps its last statement, and a stream keeps its snapshot.
    """
    engine = make_engine(SQLitePool)
    await create_items(engine)

    async def leak() -> tuple[weakref.ref[Any], ...]:
        async with engine.connect() as connection:
            raw: Any = (await connection.get_raw_connection()).driver_connection
            if streams:
                await (await connection.stream(text("SELECT id FROM items"))).fetchone()
            await raw.execute_insert("INSERT INTO items (amount) VALUES (1)", [])
            if detached:
                (await connection.get_raw_connection()).detach()
            await connection.invalidate()
            return weakref.ref(raw), weakref.ref(raw._connection)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        references = await leak()
        gc.collect()
        await until(lambda: all(reference() is None for reference in references))
    await until_free(path)
    assert await amounts(engine) == [0, 0, 0]
