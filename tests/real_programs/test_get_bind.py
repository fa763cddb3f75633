"""Libraries ask a session for its dialect; the query changes nothing."""

from __future__ import annotations

import asyncio

from sqlalchemy import select, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from .doors import Application, Door, at_once, is_locked


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


async def opened(door: Door) -> Application:
    app = await door.open()
    async with app.writer.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await app.write("INSERT INTO author VALUES (1, 'a')")
    return app


async def test_the_dialect_is_found(door: Door) -> None:
    """It is found by each method that libraries use."""
    app = await opened(door)
    async with app.session() as session:
        assert session.get_bind().dialect.name == "sqlite"
        assert session.get_bind(Author).dialect.name == "sqlite"
        assert session.sync_session.get_bind().dialect.name == "sqlite"
        assert session.bind is not None
        assert session.bind.dialect.name == "sqlite"


async def test_a_session_that_was_asked_reads_beside_a_writer(door: Door) -> None:
    """It continues to read while another task writes."""
    app = await opened(door)

    async def read() -> int:
        async with app.session() as session:
            await session.scalars(select(Author))
            session.get_bind()
            session.get_bind(Author)
            session.get_bind(mapper=Author, clause=select(Author))
            return len((await session.scalars(select(Author))).all())

    async with app.writer.connect() as writer:
        await writer.execute(text("UPDATE author SET name = 'b'"))
        assert await at_once(read()) == 1


async def test_asked_first(door: Door) -> None:
    """The same applies if the query comes before everything else."""
    app = await opened(door)

    async def read() -> int:
        async with app.session() as session:
            session.get_bind()
            return len((await session.scalars(select(Author))).all())

    async with app.writer.connect() as writer:
        await writer.execute(text("UPDATE author SET name = 'b'"))
        assert await at_once(read()) == 1


async def test_the_snapshot_stays(door: Door) -> None:
    """The query neither ends nor begins a read transaction."""
    app = await opened(door)
    async with app.session() as session:
        await session.scalars(select(Author))
        session.get_bind()
        assert not is_locked(app.path)


async def test_a_session_that_was_asked_writes(door: Door) -> None:
    """Reads, a query and a write work as without the query."""
    app = await opened(door)
    async with app.transaction() as session:
        author = await session.get_one(Author, 1)
        session.get_bind()
        author.name = "c"
        await session.flush()
        session.get_bind()
        assert (await session.scalars(select(Author.name))).all() == ["c"]
    assert await app.value("SELECT name FROM author") == "c"


async def test_an_upsert_by_dialect(door: Door) -> None:
    """A repository that chooses its INSERT by the session's dialect writes."""
    app = await opened(door)

    async def upsert(number: int) -> None:
        async with app.transaction() as session:
            assert session.get_bind().dialect.name == "sqlite"
            insert = sqlite.insert(Author).values(id=number, name="x")
            await session.execute(
                insert.on_conflict_do_update(index_elements=["id"], set_={"name": "y"})
            )

    await asyncio.gather(*(upsert(number) for number in (1, 2, 3)))
    assert await app.value("SELECT group_concat(name, '') FROM author") == "yxx"
