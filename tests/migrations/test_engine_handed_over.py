"""``config.attributes['connection']`` is an engine, as pytest-alembic passes it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sa_sqlite_pool import ConfigurationError, ReaderPool, SQLiteDatabase, SQLitePool, WriterPool
from tests.migrations.scripts import REBUILD, Scripts

DOORS = ["engine", "facade"]


@pytest.fixture(params=DOORS)
def engine(scripts: Scripts, request: pytest.FixtureRequest) -> Iterator[AsyncEngine]:
    if request.param == "facade":
        db = SQLiteDatabase(scripts.database)
        yield db.writer_engine
        asyncio.run(db.close())
    else:
        engine = create_async_engine(
            f"sqlite+aiosqlite:///{scripts.database}", poolclass=WriterPool
        )
        yield engine
        asyncio.run(engine.dispose())


def test_several_commands(scripts: Scripts, engine: AsyncEngine) -> None:
    """Each is one transaction, a rebuilt table keeps its child rows, and the engine still works."""
    config = scripts.config
    config.attributes["connection"] = engine
    command.upgrade(config, "head")
    scripts.fill(parents=2, children=6)
    scripts.add(REBUILD)
    scripts.add("op.execute('CREATE TABLE halves (x)'); op.execute('wrong')")
    command.upgrade(config, "0002")
    before = scripts.state()
    with pytest.raises(Exception, match="syntax error"):
        command.upgrade(config, "head")
    assert scripts.state() == before
    assert asyncio.run(count_children(engine)) == 6
    command.downgrade(config, "base")
    assert scripts.query("SELECT * FROM alembic_version") == []


async def count_children(engine: AsyncEngine) -> Any:
    async with engine.connect() as connection:
        return await connection.scalar(text("SELECT count(*) FROM children"))


@pytest.mark.parametrize("poolclass", [None, SQLitePool, ReaderPool])
def test_other_engines_are_refused(scripts: Scripts, poolclass: type | None) -> None:
    """They do not have the write turn, and nothing is changed."""
    options = {"poolclass": poolclass} if poolclass else {}
    config = scripts.config
    config.attributes["connection"] = create_async_engine(
        f"sqlite+aiosqlite:///{scripts.database}", **options
    )
    with pytest.raises(ConfigurationError, match="of an engine with poolclass=WriterPool"):
        command.upgrade(config, "head")
    assert not scripts.database.exists()


async def test_in_a_running_loop(scripts: Scripts, writer: AsyncEngine) -> None:
    """Alembic's commands are synchronous, and would deadlock with the loop that runs them."""
    config = scripts.config
    config.attributes["connection"] = writer
    with pytest.raises(ConfigurationError, match=r"call `await upgrade\(db, 'head'"):
        command.upgrade(config, "head")
