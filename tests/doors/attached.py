"""Engines to which two more files are attached."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import (
    SQLitePool,
)
from sa_sqlite_pool.turn.write_turn import WriteTurn
from tests.conftest import MakeEngine
from tests.doors.turns import is_locked
from tests.helpers import UPDATE_FIRST, create_items, turn_of, until

MAIN = UPDATE_FIRST


OTHER = text("UPDATE other.notes SET body = body || '+' WHERE id = 1")


THIRD = text("UPDATE third.notes SET body = body || '+' WHERE id = 1")


ENDLESS = text(
    "INSERT INTO other.notes (body) "
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
)


class Files:
    """The file ``m.db``, which the engines are on, and two attached ones, under any names."""

    def __init__(self, directory: Path, other: str, make_engine: MakeEngine) -> None:
        self.main, self.other = directory / "m.db", directory / other
        self.third = directory / "t.db"
        for file in (self.other, self.third):
            with closing(sqlite3.connect(file)) as connection:
                connection.executescript(
                    "PRAGMA journal_mode = WAL; CREATE TABLE notes (id INTEGER PRIMARY KEY, body);"
                    "INSERT INTO notes VALUES (1, '');"
                )
        self._make = make_engine

    def engine(self, poolclass: type = SQLitePool, **options: Any) -> AsyncEngine:
        """Return an engine whose connections have the other two files attached."""
        engine = self._make(poolclass, url=f"sqlite+aiosqlite:///{self.main}", **options)

        @event.listens_for(engine.sync_engine, "connect")
        def attach(connection: Any, _record: Any) -> None:
            cursor = connection.cursor()
            cursor.execute("ATTACH ? AS other", (str(self.other),))
            cursor.execute("ATTACH ? AS third", (str(self.third),))
            cursor.close()

        return engine

    def engine_of_other(self) -> AsyncEngine:
        """Return an engine on the other file itself."""
        return self._make(SQLitePool, url=f"sqlite+aiosqlite:///{self.other}")

    @property
    def turns(self) -> list[WriteTurn]:
        return [turn_of(file) for file in (self.main, self.other, self.third)]

    def written(self) -> tuple[int, str, str]:
        """Return how often each file was written."""
        with closing(sqlite3.connect(self.main)) as connection:
            (amount,) = connection.execute("SELECT amount FROM items WHERE id = 1").fetchone()
        bodies = []
        for file in (self.other, self.third):
            with closing(sqlite3.connect(file)) as connection:
                bodies.append(
                    connection.execute("SELECT body FROM notes WHERE id = 1").fetchone()[0]
                )
        return amount, bodies[0], bodies[1]

    async def come_to_rest(self) -> None:
        await until(lambda: all(turn.holder is None for turn in self.turns))
        assert not any(is_locked(file) for file in (self.main, self.other, self.third))


@pytest.fixture(params=["a.db", "z.db"], ids=["before", "after"])
async def files(
    request: pytest.FixtureRequest, path: Path, make_engine: MakeEngine
) -> AsyncIterator[Files]:
    files = Files(path.parent.resolve(), request.param, make_engine)
    await create_items(files.engine())
    yield files
    await files.come_to_rest()


async def files_free(files: Files) -> None:
    await until(lambda: all(turn.holder is None for turn in files.turns))
