"""Which names belong to an auto session's temp tables after creation, renaming, and failure."""

from __future__ import annotations

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, lambda_stmt, select, text
from sqlalchemy.exc import InvalidRequestError, OperationalError

from tests.sessions.beside import Heard, Maker

pytestmark = pytest.mark.sqlite

chosen = Table("chosen", MetaData(), Column("id", Integer, primary_key=True))
CREATE = text("CREATE TEMP TABLE chosen (id INTEGER PRIMARY KEY)")


async def test_a_lambda_is_about_what_its_statement_is_about(maker: Maker, heard: Heard) -> None:
    """It fills a temp table like the statement itself, which fails after the first write."""
    number = 0

    def fill() -> object:
        return lambda_stmt(lambda: insert(chosen).values(id=number))

    async with maker() as session:
        await session.execute(CREATE)
        for number in (3, 4):  # noqa: B007 - the lambda's
            await session.execute(fill())  # type: ignore[call-overload]
        assert list(await session.scalars(select(chosen.c.id))) == [3, 4]
        assert heard.of("writer") == []
        await session.execute(text("UPDATE items SET amount = 5"))
        with pytest.raises(InvalidRequestError, match="'chosen' belongs to the reader"):
            await session.execute(fill())  # type: ignore[call-overload]


async def test_a_table_of_the_same_name_is_made_in_the_file(maker: Maker) -> None:
    """Without TEMP, it is no temp table, so no reader refuses it; later uses are distinguished."""
    async with maker() as session:
        await session.execute(CREATE)
        with pytest.raises(InvalidRequestError, match="'chosen' belongs to the reader"):
            await session.execute(text("CREATE TABLE chosen (id)"))
        await session.execute(text("CREATE TABLE main.chosen (id)"))
        await session.execute(text("INSERT INTO main.chosen VALUES (9)"))
        assert list(await session.scalars(text("SELECT id FROM main.chosen"))) == [9]


@pytest.mark.parametrize("table", ["temp.chosen", "chosen", '"temp"."chosen"'])
async def test_a_trigger_on_one(table: str, maker: Maker, heard: Heard) -> None:
    """It is located with its table, however that is written."""
    trigger = f"CREATE TRIGGER other AFTER INSERT ON {table} BEGIN SELECT 1; END"
    async with maker() as session:
        await session.execute(CREATE)
        await session.execute(text(trigger))
        await session.execute(text("DROP TRIGGER other"))
        assert heard.of("writer") == []


async def test_a_statement_that_fails_makes_and_renames_nothing(maker: Maker, heard: Heard) -> None:
    """The names of temp tables and other tables stay as they were."""
    async with maker() as session:
        await session.execute(CREATE)
        await session.execute(text("CREATE TEMP TABLE other (id)"))
        with pytest.raises(OperationalError, match="already"):
            await session.execute(text("ALTER TABLE chosen RENAME TO other"))
        for name in ("chosen", "other"):
            await session.execute(text(f"INSERT INTO {name} VALUES (1)"))
            assert list(await session.scalars(text(f"SELECT id FROM {name}"))) == [1]
        with pytest.raises(OperationalError, match="no such table"):
            await session.execute(text("CREATE TEMP TABLE items AS SELECT * FROM nowhere"))
        assert heard.of("writer") == []
        await session.execute(text("UPDATE items SET amount = 5"))
        assert heard[-1] == "writer: UPDATE"
