"""Functions with a session of the application's class."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from sa_sqlite_pool import SQLiteDatabase
from tests.helpers import Item, create_items


class CountingSession(Session):
    """A synchronous session with a method of its own."""

    def count(self) -> int:
        return self.scalars(select(func.count()).select_from(Item)).one()


class CountingAsyncSession(AsyncSession):
    sync_session_class = CountingSession


async def test_functions_get_a_session_of_the_class(path: Path) -> None:
    """run_read() and run_write() create the synchronous session of ``session_class``."""
    async with SQLiteDatabase(path, session_class=CountingAsyncSession) as db:
        await create_items(db.writer_engine)

        def add(session: Session) -> int:
            assert type(session) is CountingSession
            session.add(Item(id=9))
            session.flush()
            return session.count()

        def count(session: Session) -> int:
            assert isinstance(session, CountingSession)
            return session.count()

        assert await db.run_write(add) == 4
        assert await db.run_read(count) == 4


async def test_the_ordinary_one_is_sqlalchemys(path: Path) -> None:
    """Without ``session_class``, a function receives a plain ``Session``."""
    async with SQLiteDatabase(path) as db:
        assert await db.run_read(type) is Session
