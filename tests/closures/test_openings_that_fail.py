"""Functions whose connection cannot be opened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, exc, text
from sqlalchemy.orm import Session

from sa_sqlite_pool import DatabaseNotUsableError, SQLiteDatabase


def ask(connection: Connection | Session) -> object:
    return connection.execute(text("SELECT 1")).scalar()


Run = Callable[[SQLiteDatabase], Awaitable[object]]

RUNS: list[Run] = [
    lambda db: db.run_write(ask),
    lambda db: db.run_write_core(ask),
    lambda db: db.run_read(ask),
    lambda db: db.run_read_core(ask),
]


@pytest.mark.parametrize("run", RUNS)
async def test_the_error_is_sqlalchemys(path: Path, run: Run) -> None:
    """As that of sessions: applications catch SQLAlchemy's, and listeners are told of it."""
    seen: list[object] = []
    async with SQLiteDatabase(path) as db:
        for engine in (db.writer_engine, db.reader_engine):
            event.listen(
                engine.sync_engine, "handle_error", lambda context: seen.append(context.engine)
            )
            await engine.dispose()
        for file in path.parent.glob(f"{path.name}*"):
            if file.is_file():
                file.unlink()
        path.mkdir()
        with pytest.raises(exc.OperationalError, match=r"app\.db") as raised:
            await run(db)
        assert isinstance(raised.value.orig, DatabaseNotUsableError)
        assert len(seen) == 1
        path.rmdir()
        await db.writer_engine.dispose()
        assert await db.run_write(ask) == await run(db) == 1
