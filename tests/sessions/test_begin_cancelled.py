"""``engine.begin()`` may be cancelled anywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import SQLiteDatabase
from tests.cancelling import cancelled_at
from tests.helpers import UPDATE_FIRST, create_items, until_free
from tests.sessions.begin import amount, nothing_held, on_begin, own, sqlalchemys


@pytest.mark.parametrize("stubborn", [False, True], ids=["once", "again and again"])
@pytest.mark.parametrize("of", [own, sqlalchemys])
async def test_cancelled_anywhere(
    path: Path, of: Callable[[AsyncEngine], AsyncEngine], stubborn: bool
) -> None:
    """The cancellation comes at each await, with a listener that writes at the beginning.

    The connection is the same afterwards.
    """
    opened: list[object] = []

    async with SQLiteDatabase(path, placement="thread", on_connect=opened.append) as db:

        async def work() -> None:
            async with of(db.writer_engine).begin() as connection:
                await connection.execute(UPDATE_FIRST)

        await create_items(db.writer_engine)
        await amount(db)
        end = on_begin(db.writer_engine, lambda connection: connection.execute(UPDATE_FIRST))
        known, number, heard = len(opened), 0, True
        while heard:
            before, number = await amount(db), number + 1
            heard = await cancelled_at(work(), number, stubborn)
            await until_free(path)
            # COMMIT may have been sent already.
            assert await amount(db) - before in ((0, 2) if heard else (2,))
        assert number > 3
        assert len(opened) == known
        end()
        await nothing_held(db, path)
