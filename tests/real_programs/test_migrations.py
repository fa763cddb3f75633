"""A batch migration keeps child rows, whatever runs before it on the connection."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from alembic.util import CommandError
from sqlalchemy import event, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool.migrations import upgrade
from tests.migrations.scripts import CREATE, REBUILD, Scripts

from .doors import ENGINES, FACADE, Door, Listen
from .listeners import BEFORE, executing
from .parameters import first

CREATE_ROWS = """
op.execute("INSERT INTO parents VALUES (1, 1), (2, 2)")
op.execute("INSERT INTO children VALUES (1, 1), (2, 1), (3, 2)")
"""

both = pytest.mark.parametrize("door", [ENGINES, FACADE], indirect=True)


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    scripts = Scripts(tmp_path / "project")
    scripts.add(CREATE)
    scripts.add(CREATE_ROWS)
    scripts.add(REBUILD)
    return scripts


@pytest.mark.parametrize(("listen", "options"), first(5, BEFORE.values(), BEFORE))
@both
async def test_child_rows_are_kept(
    door: Door, scripts: Scripts, listen: Any, options: dict[str, Any]
) -> None:
    """A ping or a listener does not leave foreign keys on while the parent table is replaced."""
    app = await door.open(listen=listen, **options)
    target: Any = app.database or app.writer
    await upgrade(target, "0002", config=scripts.config)
    await app.write("CREATE TABLE warm (x)")
    await upgrade(target, "0003", config=scripts.config)
    assert await app.value("SELECT count(*) FROM children") == 3
    assert await app.value("PRAGMA foreign_keys") == 1


@pytest.mark.parametrize("on", ["connect", "checkout", "engine_connect"])
@both
async def test_a_transaction_of_a_listener_loses_no_row(
    door: Door, scripts: Scripts, on: str
) -> None:
    """If a listener has begun a transaction, the migration keeps the rows, or is refused."""
    app = await door.open()
    target: Any = app.database or app.writer
    await upgrade(target, "0002", config=scripts.config)
    await app.write("CREATE TABLE seen (x)")
    listening = await door.open(listen_to_writer=_beginning(on))
    with suppress(CommandError, SQLAlchemyError):
        await upgrade(listening.database or listening.writer, "0003", config=scripts.config)
    assert await app.value("SELECT count(*) FROM children") == 3


def _beginning(on: str) -> Listen:
    insert = "INSERT INTO seen VALUES (1)"
    if on != "engine_connect":
        return executing("BEGIN", insert, on=on)

    def listen(engine: AsyncEngine) -> None:
        event.listen(engine.sync_engine, on, lambda conn: conn.exec_driver_sql(insert))

    return listen


@both
async def test_foreign_keys_that_a_listener_switches_on(door: Door, scripts: Scripts) -> None:
    """A checkout listener that enables foreign keys does so before the migration, not within it."""
    app = await door.open(listen=executing("PRAGMA foreign_keys = ON", on="checkout"))
    target: Any = app.database or app.writer
    await upgrade(target, "head", config=scripts.config)
    assert await app.value("SELECT count(*) FROM children") == 3
    async with app.writer.connect() as connection:
        assert (await connection.execute(text("PRAGMA foreign_keys"))).scalar_one() == 1
