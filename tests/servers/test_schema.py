"""The schema changes on the writer, and the reader's connections notice."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import DDL, event, select, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.util import await_only

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


async def read_view(engine: AsyncEngine) -> int:
    """Return the number of columns of the view."""
    async with engine.connect() as connection:
        return len((await connection.execute(text("SELECT * FROM view"))).one())


async def test_a_read_while_it_changes(app: App) -> None:
    """A statement prepared between the change and its COMMIT has the previous schema."""
    app.sql("CREATE VIEW view AS SELECT 1 AS a")
    async with app.open(replicas=[], readers=1) as db:
        async with db.writer_engine.begin() as connection:
            # This locks no view, but represents a change of one until the transaction ends.
            await connection.execute(ddl(f"ALTER DATABASE {app.database} SET work_mem = 64"))
            assert await read_view(db.reader_engine) == 1
            app.sql("CREATE OR REPLACE VIEW view AS SELECT 1 AS a, 2 AS b")
        assert await read_view(db.reader_engine) == 2


class Stop(BaseException):
    """The exception of a cancellation, or of a signal handler."""


async def test_a_commit_whose_outcome_is_unknown(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader's statements are prepared again, since it may have been executed."""
    app.sql("CREATE VIEW view AS SELECT 1 AS a; CREATE SCHEMA first")
    app.sql(f"ALTER DATABASE {app.database} SET search_path = first, public")
    async with app.open(replicas=[], readers=1) as db:
        driver = type(db.writer_engine.pool.driver)  # type: ignore[attr-defined]

        def commit(_: object, _connection: object, send: Callable[[], None]) -> None:
            send()
            raise Stop

        connection = await db.writer_engine.connect()
        await connection.execute(ddl("CREATE VIEW first.view AS SELECT 1 AS a, 2 AS b"))
        assert await read_view(db.reader_engine) == 1
        with monkeypatch.context() as patch, pytest.raises(Stop):
            patch.setattr(driver, "commit", commit)
            await connection.commit()
        await connection.close()
        assert await read_view(db.reader_engine) == 2


async def test_a_statement_without_a_transaction_that_fails(app: App) -> None:
    """It may have been executed."""
    app.sql("CREATE VIEW view AS SELECT 1 AS a; CREATE SCHEMA first")
    app.sql(f"ALTER DATABASE {app.database} SET search_path = first, public")
    async with app.open(replicas=[], readers=1) as db:
        engine = db.writer_engine.execution_options(isolation_level="AUTOCOMMIT")
        run = db.writer_engine.dialect.do_execute

        async def read() -> None:
            assert await read_view(db.reader_engine) == 1

        @event.listens_for(db.writer_engine.sync_engine, "do_execute")
        def execute(cursor: Any, sql: str, parameters: Any, context: Any) -> None:
            await_only(read())
            run(cursor, sql, parameters, context)
            raise Stop

        async with engine.connect() as connection:
            with pytest.raises(Stop):
                await connection.execute(ddl("CREATE VIEW first.view AS SELECT 1 AS a, 2 AS b"))
        assert await read_view(db.reader_engine) == 2
