"""Read a row, and add it in a savepoint if it is missing, in one session."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from .doors import Application, Door


class Base(DeclarativeBase):
    pass


class Tag(Base):
    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


async def opened(door: Door) -> Application:
    app = await door.open()
    async with app.writer.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    return app


async def get_or_create(session: AsyncSession, name: str) -> Tag:
    found = await session.scalar(select(Tag).where(Tag.name == name))
    if found is not None:
        return found
    try:
        async with session.begin_nested():
            tag = Tag(name=name)
            session.add(tag)
    except IntegrityError:  # another was faster
        return (await session.scalars(select(Tag).where(Tag.name == name))).one()
    return tag


async def names(app: Application) -> list[str]:
    return [name for (name,) in await app.rows("SELECT name FROM tags ORDER BY name")]


async def test_it_is_created_once(door: Door) -> None:
    """The first call adds the row, the second finds it."""
    app = await opened(door)
    for _ in range(2):
        async with app.session() as session, session.begin():
            assert (await get_or_create(session, "red")).id == 1
    assert await names(app) == ["red"]


async def test_several_tasks_create_one(door: Door) -> None:
    """Tasks that want the same tag at the same time get the same row, or retry."""
    app = await opened(door)

    async def work() -> int:
        for _ in range(10):
            try:
                async with app.session() as session, session.begin():
                    return (await get_or_create(session, "red")).id
            except Exception:  # a stock transaction whose snapshot is stale cannot write
                if not door.stock:
                    raise
        raise AssertionError("never")

    assert set(await asyncio.gather(*(work() for _ in range(5)))) == {1}


async def test_a_duplicate_rolls_back_the_savepoint_alone(door: Door) -> None:
    """The application's own IntegrityError is raised, and its earlier writes are kept."""
    app = await opened(door)
    await app.write("INSERT INTO tags (name) VALUES ('red')")
    async with app.transaction() as session:
        await session.scalar(select(Tag).where(Tag.name == "nobody"))
        session.add(Tag(name="before"))
        await session.flush()
        with pytest.raises(IntegrityError, match="UNIQUE"):
            async with session.begin_nested():
                session.add(Tag(name="red"))
        assert (await session.scalars(select(Tag).where(Tag.name == "red"))).one().id == 1
        session.add(Tag(name="after"))
    assert await names(app) == ["after", "before", "red"]


async def test_a_duplicate_as_the_first_write(door: Door) -> None:
    """The same applies if nothing was written before."""
    app = await opened(door)
    await app.write("INSERT INTO tags (name) VALUES ('red')")
    async with app.transaction() as session:
        await session.scalars(select(Tag))
        with pytest.raises(IntegrityError, match="UNIQUE"):
            async with session.begin_nested():
                session.add(Tag(name="red"))
        session.add(Tag(name="after"))
    assert await names(app) == ["after", "red"]


async def test_a_savepoint_that_reads_and_then_writes(door: Door) -> None:
    """begin_nested() comes first; the read and the write are inside it."""
    app = await opened(door)
    async with app.transaction() as session:
        async with session.begin_nested():
            assert (await session.scalars(select(Tag))).all() == []
            session.add(Tag(name="inside"))
        assert len((await session.scalars(select(Tag))).all()) == 1
    assert await names(app) == ["inside"]


async def test_savepoints_in_savepoints(door: Door) -> None:
    """There are reads on the way in, one write in the deepest, and reads on the way out."""
    app = await opened(door)
    async with app.transaction() as session:
        await session.scalars(select(Tag))
        async with session.begin_nested():
            await session.scalars(select(Tag))
            async with session.begin_nested():
                await session.scalars(select(Tag))
                session.add(Tag(name="deep"))
            assert len((await session.scalars(select(Tag))).all()) == 1
        assert len((await session.scalars(select(Tag))).all()) == 1
    assert await names(app) == ["deep"]


async def test_an_outer_savepoint_takes_the_inner_along(door: Door) -> None:
    """A released inner savepoint is rolled back with the outer one."""
    app = await opened(door)
    async with app.transaction() as session:
        await session.scalars(select(Tag))
        outer = await session.begin_nested()
        async with session.begin_nested():
            session.add(Tag(name="inner"))
        await outer.rollback()
        assert (await session.scalars(select(Tag))).all() == []
        session.add(Tag(name="kept"))
    assert await names(app) == ["kept"]


async def test_a_savepoint_that_only_reads(door: Door) -> None:
    """It is released, and the session continues to read and then writes."""
    app = await opened(door)
    async with app.transaction() as session:
        async with session.begin_nested():
            await session.scalars(select(Tag))
        await session.scalars(select(Tag))
        session.add(Tag(name="later"))
    assert await names(app) == ["later"]


async def test_an_error_of_the_application_passes_through(door: Door) -> None:
    """An error raised inside a savepoint reaches the caller."""
    app = await opened(door)
    async with app.transaction() as session:
        await session.scalars(select(Tag))
        with pytest.raises(KeyError, match="mine"):
            async with session.begin_nested():
                session.add(Tag(name="gone"))
                await session.flush()
                raise KeyError("mine")
        session.add(Tag(name="kept"))
    assert await names(app) == ["kept"]


async def test_rollback_of_the_whole_after_a_savepoint(door: Door) -> None:
    """Nothing is left, and the session begins again."""
    app = await opened(door)
    async with app.session() as session:
        await session.scalars(select(Tag))
        async with session.begin_nested():
            session.add(Tag(name="gone"))
        await session.rollback()
        if not door.stock:  # where RELEASE commits, since no BEGIN was sent
            assert (await session.scalars(select(Tag))).all() == []
        async with session.begin_nested():
            session.add(Tag(name="kept"))
        await session.commit()
    assert (await names(app))[-1] == "kept"


async def test_savepoints_on_a_connection(door: Door) -> None:
    """The same applies to Core."""
    app = await opened(door)
    async with app.writer.begin() as connection:
        await connection.execute(select(Tag))
        with pytest.raises(IntegrityError):
            async with connection.begin_nested():
                await connection.execute(text("INSERT INTO tags (name) VALUES ('a'), ('a')"))
        async with connection.begin_nested():
            await connection.execute(text("INSERT INTO tags (name) VALUES ('a')"))
    assert await names(app) == ["a"]


@pytest.mark.parametrize(
    "sql", ["SAVEPOINT", "SAVEPOINT a b", "SAVEPOINT 1", "SAVEPOINT a; SELECT 1"]
)
async def test_a_savepoint_with_a_mistake_fails_at_once(changing: Door, sql: str) -> None:
    """SQLite's own error is raised there, and not with the first write after it, which is valid."""
    app = await changing.open()
    await app.write("CREATE TABLE t (x)")
    async with app.enter() as session:
        with pytest.raises((DBAPIError, sqlite3.Warning)):  # which two statements were until 3.10
            await session.execute(text(sql))
        await session.rollback()
    async with app.enter() as session:
        await session.execute(text("SAVEPOINT [a b] -- one\n;"))
        await session.execute(text("INSERT INTO t VALUES (1)"))
        await session.execute(text("RELEASE [a b]"))
        await session.commit()
    assert await app.value("SELECT count(*) FROM t") == 1
