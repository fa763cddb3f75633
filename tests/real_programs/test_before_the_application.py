"""Pings and listeners run before the application has its connection, and leave no transaction."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from .doors import OURS, Door, is_locked
from .listeners import BEFORE, executing, executing_in_engine_connect
from .parameters import first

before = pytest.mark.parametrize(("listen", "options"), first(5, BEFORE.values(), BEFORE))
without_stock = pytest.mark.parametrize("door", OURS, indirect=True)


async def opened(door: Door, listen: Any, options: dict[str, Any]) -> Any:
    app = await door.open(listen=listen, **options)
    await app.write("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, x)")
    return app


@before
async def test_vacuum_is_possible(door: Door, listen: Any, options: dict[str, Any]) -> None:
    """VACUUM fails inside a transaction, so there must be none."""
    app = await opened(door, listen, options)
    async with app.writer.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("VACUUM"))


@before
async def test_autocommit_commits(door: Door, listen: Any, options: dict[str, Any]) -> None:
    """Writes with AUTOCOMMIT are kept without a commit, by option of the connection."""
    app = await opened(door, listen, options)
    async with app.writer.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("INSERT INTO t (x) VALUES (1)"))
    assert await app.value("SELECT count(*) FROM t") == 1


@before
async def test_an_autocommit_engine_commits(
    door: Door, listen: Any, options: dict[str, Any]
) -> None:
    """The same applies to an option of the engine."""
    app = await opened(door, listen, options)
    engine = app.writer.execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO t (x) VALUES (1)"))
    assert await app.value("SELECT count(*) FROM t") == 1


@before
async def test_foreign_keys_can_be_switched(
    door: Door, listen: Any, options: dict[str, Any]
) -> None:
    """The PRAGMA has no effect inside a transaction, so as first statement it is outside one."""
    app = await opened(door, listen, options)
    for value in (1, 0):
        async with app.writer.connect() as connection:
            await connection.execute(text(f"PRAGMA foreign_keys = {value}"))
            asked = await connection.execute(text("PRAGMA foreign_keys"))
            assert asked.scalar_one() == value


@before
async def test_no_lock_is_held(door: Door, listen: Any, options: dict[str, Any]) -> None:
    """A connection that has executed nothing blocks no writer."""
    app = await opened(door, listen, options)
    async with app.writer.connect():
        assert not is_locked(app.path)
    assert not is_locked(app.path)


@before
async def test_the_application_works(door: Door, listen: Any, options: dict[str, Any]) -> None:
    """It writes and reads as without listeners, repeatedly."""
    app = await opened(door, listen, options)
    for number in range(3):
        async with app.transaction() as session:
            await session.execute(text("INSERT INTO t (x) VALUES (:x)"), {"x": number})
        async with app.session() as session:
            assert await session.scalar(text("SELECT count(*) FROM t")) == number + 1


@before
@without_stock
async def test_the_turn_follows_the_application(
    door: Door, listen: Any, options: dict[str, Any]
) -> None:
    """The first statement after a ping begins the writer's transaction, with SQLite's lock."""
    app = await opened(door, listen, options)
    async with app.writer.connect() as connection:
        await connection.execute(text("INSERT INTO t (x) VALUES (1)"))
        assert is_locked(app.path)
        await connection.commit()
        assert not is_locked(app.path)


@pytest.mark.parametrize("on", ["connect", "first_connect", "checkout"])
async def test_what_a_listener_has_committed_stays(door: Door, on: str) -> None:
    """A listener that records each connection in a table finds its row."""
    app = await door.open()
    await app.write("CREATE TABLE seen (x)")
    listening = await door.open(
        listen_to_writer=executing("INSERT INTO seen VALUES (1)", on=on, commits=True)
    )
    async with listening.writer.connect() as connection:
        assert not is_locked(app.path)
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("VACUUM"))
    assert await app.value("SELECT count(*) >= 1 FROM seen")


async def test_a_table_that_a_listener_makes_is_there(door: Door) -> None:
    """The listener runs CREATE TABLE IF NOT EXISTS on connect, on the engine that writes."""
    create = executing("CREATE TABLE IF NOT EXISTS made (x)", commits=True)
    app = await door.open(listen_to_writer=create)
    async with app.transaction() as session:
        await session.execute(text("INSERT INTO made VALUES (1)"))
    assert await app.value("SELECT count(*) FROM made") == 1


@pytest.mark.parametrize("on", ["connect", "checkout"])
@without_stock
async def test_a_write_that_is_not_committed_leaves_no_transaction(door: Door, on: str) -> None:
    """A listener that does not commit leaves neither the turn nor the lock acquired."""
    app = await door.open()
    await app.write("CREATE TABLE seen (x)")
    listening = await door.open(listen_to_writer=executing("INSERT INTO seen VALUES (1)", on=on))
    async with listening.writer.connect():
        assert not is_locked(app.path)


async def test_a_listener_may_begin_in_engine_connect(door: Door) -> None:
    """A schema query in engine_connect, rolled back, may precede begin()."""
    listen = executing_in_engine_connect("SELECT count(*) FROM sqlite_master")
    app = await door.open(listen=listen)
    async with app.writer.begin() as connection:
        await connection.execute(text("CREATE TABLE t (x)"))
    assert await app.rows("SELECT * FROM t") == []
