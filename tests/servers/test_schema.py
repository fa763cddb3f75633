"""The schema changes on the writer, and the reader's connections notice."""

from __future__ import annotations

import enum
from typing import Any

import pytest
from sqlalchemy import DDL, select, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tests.postgresql import App


class Base(DeclarativeBase):
    pass


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Lamp(Base):
    __tablename__ = "lamps"

    id: Mapped[int] = mapped_column(primary_key=True)
    color: Mapped[Color]


ALL = text("SELECT * FROM lamps")


def ddl(sql: str) -> DDL:
    return DDL(sql)  # type: ignore[no-untyped-call]


async def test_tables_and_types_made_anew(app: App) -> None:
    """Statements that the reader has prepared, and the type of an Enum, are new ones afterwards."""
    async with app.open(replicas=[], readers=1) as db:
        for _ in range(3):
            async with db.writer_engine.begin() as connection:
                await connection.run_sync(Base.metadata.drop_all)
                await connection.run_sync(Base.metadata.create_all)
            async with db.write() as session:
                session.add(Lamp(color=Color.BLUE))
            async with db.read() as session:
                where = Lamp.color == Color.BLUE
                assert await session.scalar(select(Lamp.color).where(where)) is Color.BLUE
                assert (await session.execute(ALL)).one()[1] == "BLUE"


@pytest.mark.parametrize("autocommit", [False, True])
async def test_a_column_more(app: App, autocommit: bool) -> None:
    """A column may be added in a transaction or with AUTOCOMMIT."""
    async with app.open(replicas=[], readers=1) as db:
        async with db.writer_engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(text("INSERT INTO lamps (color) VALUES ('RED')"))
        options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"} if autocommit else {}
        engine = db.writer_engine.execution_options(**options)
        for number in range(3):
            async with db.read() as session:
                assert len((await session.execute(ALL)).one()) == 2 + number
            async with engine.begin() as connection:
                await connection.execute(ddl(f"ALTER TABLE lamps ADD COLUMN more{number} int"))


async def test_a_read_while_it_changes(app: App) -> None:
    """What is prepared between the statement and its COMMIT is of the schema before."""

    async def read(engine: AsyncEngine) -> int:
        async with engine.connect() as connection:
            return len((await connection.execute(text("SELECT * FROM view"))).one())

    app.sql("CREATE VIEW view AS SELECT 1 AS a")
    async with app.open(replicas=[], readers=1) as db:
        async with db.writer_engine.begin() as connection:
            # This locks no view, but represents a change of one until the transaction ends.
            await connection.execute(ddl(f"ALTER DATABASE {app.database} SET work_mem = 64"))
            assert await read(db.reader_engine) == 1
            app.sql("CREATE OR REPLACE VIEW view AS SELECT 1 AS a, 2 AS b")
        assert await read(db.reader_engine) == 2
