"""Commit in the middle of a block, and continue: refresh, the next chunk, the next attempt."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sa_sqlite_pool import SQLiteDatabase

from .doors import Application, Door, at_once, is_locked


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str] = mapped_column(unique=True)


async def opened(door: Door) -> Application:
    app = await door.open()
    async with app.writer.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    return app


def block(app: Application) -> AbstractAsyncContextManager[AsyncSession]:
    """The session that a web application's dependency passes to the endpoint."""
    return app.session() if app.database is None else app.db.write()


async def bodies(app: Application) -> list[str]:
    return [body for (body,) in await app.rows("SELECT body FROM notes ORDER BY id")]


async def test_commit_and_refresh(door: Door) -> None:
    """The endpoint of every tutorial: add, commit, refresh, return."""
    app = await opened(door)
    async with block(app) as session:
        note = Note(body="one")
        session.add(note)
        await session.commit()
        await session.refresh(note)
        assert note.id == 1
    assert await bodies(app) == ["one"]


async def test_others_write_between_chunks(door: Door) -> None:
    """Each commit releases the lock and the turn; the next chunk acquires them again."""
    app = await opened(door)
    async with block(app) as session:
        for chunk in ("a", "b"):
            session.add(Note(body=chunk))
            await session.commit()
            assert not is_locked(app.path)
            await at_once(app.write(f"INSERT INTO notes (body) VALUES ('beside {chunk}')"))
    assert await bodies(app) == ["a", "beside a", "b", "beside b"]


async def test_a_transaction_by_begin_within_the_block(door: Door) -> None:
    """It may begin before the first statement, as in any session."""
    app = await opened(door)
    async with block(app) as session:
        for body in ("a", "b"):
            async with session.begin():
                session.add(Note(body=body))
    assert await bodies(app) == ["a", "b"]


async def test_rollback_and_another_attempt(door: Door) -> None:
    """Changes after the rollback are kept, changes before it are not."""
    app = await opened(door)
    async with block(app) as session:
        session.add_all([Note(body="taken"), Note(body="taken")])
        with pytest.raises(IntegrityError):
            await session.flush()
        await session.rollback()
        session.add(Note(body="free"))
        await session.commit()
    assert await bodies(app) == ["free"]


@pytest.fixture
async def items(db: SQLiteDatabase) -> SQLiteDatabase:
    async with db.writer_engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    return db


async def stored(db: SQLiteDatabase) -> list[str]:
    async with db.read() as session:
        return [note.body for note in (await session.execute(Note.__table__.select())).all()]


async def test_the_end_of_the_block_commits_what_came_last(items: SQLiteDatabase) -> None:
    """This applies after a commit, a rollback and a close."""
    for end in ("commit", "rollback", "close"):
        async with items.write() as session:
            await getattr(session, end)()
            session.add(Note(body=end))
    assert await stored(items) == ["commit", "rollback", "close"]


async def test_a_block_that_raises_keeps_what_was_committed(items: SQLiteDatabase) -> None:
    """Nothing else is kept."""
    for error in (ZeroDivisionError(), asyncio.CancelledError()):
        with pytest.raises(type(error)):
            async with items.write() as session:
                session.add(Note(body=type(error).__name__))
                await session.commit()
                session.add(Note(body="lost"))
                await session.flush()
                raise error
    assert await stored(items) == ["ZeroDivisionError", "CancelledError"]


async def test_a_failed_flush_that_was_caught_ends_without_an_error(items: SQLiteDatabase) -> None:
    """It ends like ``session.begin()``: an endpoint answers 409, and nothing is kept."""
    async with items.write() as session:
        session.add_all([Note(body="taken"), Note(body="taken")])
        with pytest.raises(IntegrityError):
            await session.flush()
    assert await stored(items) == []
