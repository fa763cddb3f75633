"""Temp tables belong to a connection: no turn, no lock, on readers, too."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sa_sqlite_pool import ForbiddenWriteError
from tests.helpers import turn_of, until_waiting

from .doors import (
    ENGINES,
    FACADE,
    READERS,
    SWAP_IN,
    Application,
    Door,
    Executor,
    at_once,
    is_locked,
)

SCRATCH = [
    "CREATE TEMP TABLE chosen (id INTEGER PRIMARY KEY, note)",
    "CREATE TEMPORARY TABLE copied AS SELECT * FROM t",
    "INSERT INTO chosen SELECT id, '' FROM t WHERE x > 1",
    "INSERT INTO temp.chosen VALUES (10, 'a') RETURNING id",
    "CREATE INDEX temp.by_note ON chosen (note)",
    "CREATE TEMP VIEW seen AS SELECT t.x FROM t JOIN chosen USING (id)",
    "CREATE TEMP TRIGGER noted AFTER INSERT ON chosen BEGIN UPDATE copied SET x = 0; END",
    "INSERT INTO chosen VALUES (11, 'b')",
    "ALTER TABLE chosen ADD COLUMN more",
    "UPDATE chosen SET note = 'c' WHERE id = 10",
    "WITH n(i) AS (SELECT 20) INSERT INTO chosen (id) SELECT i FROM n",
    "REPLACE INTO chosen (id) VALUES (20)",
    "DELETE FROM chosen WHERE id = 20",
    "ANALYZE temp",
    "REINDEX temp.by_note",
    "SELECT count(*) FROM seen",
    "CREATE VIRTUAL TABLE temp.words USING fts5(body)",
    "INSERT INTO words VALUES ('red')",
    "SELECT rowid FROM words WHERE words MATCH 'red'",
    "DROP TABLE words",
    "DROP TRIGGER noted",
    "DROP VIEW seen",
    "DROP INDEX by_note",
    "DROP TABLE chosen",
    "DROP TABLE temp.copied",
]


async def opened(door: Door) -> Application:
    app = await door.open()
    await app.write(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, x)", "INSERT INTO t (x) VALUES (1), (2), (3)"
    )
    return app


async def scratch(connection: Executor) -> None:
    for statement in SCRATCH:
        await connection.execute(text(statement))


async def test_they_are_scratch_space(reading: Door) -> None:
    """They are created, filled, joined and dropped in one transaction, repeatedly."""
    app = await opened(reading)
    for _ in range(3):
        async with app.enter() as connection:
            await scratch(connection)
            await connection.commit()


async def test_they_take_no_lock(reading: Door) -> None:
    """Other programs write meanwhile."""
    app = await opened(reading)
    async with app.enter() as connection:
        for statement in SCRATCH:
            await connection.execute(text(statement))
            assert not is_locked(app.path), statement
        await connection.commit()


async def test_they_do_not_wait_for_a_writer(reading: Door) -> None:
    """While another task holds the turn, they can be used nevertheless."""
    app = await opened(reading)

    async def work() -> None:
        async with app.enter() as connection:
            await scratch(connection)

    async with app.writer.connect() as writer:
        await writer.execute(text("UPDATE t SET x = 4"))
        await at_once(work())
        await writer.commit()


async def test_a_writer_does_not_wait_for_them(reading: Door) -> None:
    """While a long report uses its temp table, another task writes."""
    app = await opened(reading)
    filled, stop = asyncio.Event(), asyncio.Event()

    async def report() -> int:
        async with app.enter() as connection:
            await connection.execute(text("CREATE TEMP TABLE chosen (id INTEGER PRIMARY KEY)"))
            await connection.execute(text("INSERT INTO chosen SELECT id FROM t WHERE x > 1"))
            filled.set()
            await stop.wait()
            joined = text("SELECT count(*) FROM t JOIN chosen USING (id)")
            return int((await connection.execute(joined)).scalar_one())

    task = asyncio.create_task(report())
    await asyncio.wait([task, asyncio.ensure_future(filled.wait())], return_when="FIRST_COMPLETED")
    try:
        await at_once(app.write("INSERT INTO t (x) VALUES (9)"))
    finally:
        stop.set()
    assert await task == 2


async def test_what_only_lives_in_a_transaction_is_rolled_back(reading: Door) -> None:
    """A temp table that was created and not committed is gone after rollback."""
    app = await opened(reading)
    async with app.enter() as connection:
        await connection.execute(text("SELECT 1"))
        await connection.execute(text("CREATE TEMP TABLE chosen (id)"))
        await connection.execute(text("INSERT INTO chosen VALUES (1)"))
        await connection.rollback()
        if reading.kind in {ENGINES, FACADE}:  # others have sent no BEGIN before the CREATE
            count = text("SELECT count(*) FROM sqlite_temp_master WHERE name = 'chosen'")
            assert (await connection.execute(count)).scalar_one() == 0


TRIGGERS = {
    "on a temp table": [
        "CREATE TEMP TABLE inbox (x)",
        "CREATE TEMP TRIGGER deliver AFTER INSERT ON inbox "
        "BEGIN INSERT INTO t (x) VALUES (new.x); END",
    ],
    "instead of a temp view": [
        "CREATE TEMP VIEW inbox AS SELECT x FROM t",
        "CREATE TEMP TRIGGER deliver INSTEAD OF INSERT ON inbox "
        "BEGIN INSERT INTO t (x) VALUES (new.x); END",
    ],
}
triggers = pytest.mark.parametrize("statements", TRIGGERS.values(), ids=TRIGGERS)


@triggers
async def test_a_temp_trigger_that_writes_a_table_is_a_write(
    changing: Door, statements: list[str]
) -> None:
    """It acquires SQLite's lock, and rollback undoes it; or a reader refuses it."""
    app = await opened(changing)
    try:
        async with app.enter() as connection:
            await connection.execute(text("SELECT count(*) FROM t"))
            for statement in statements:
                await connection.execute(text(statement))
            await connection.execute(text("INSERT INTO inbox VALUES (4)"))
            assert is_locked(app.path)
            await connection.rollback()
    except DBAPIError as error:  # an auto session takes temporary objects for reads
        assert changing.kind in {ENGINES, FACADE}
        assert isinstance(error.orig, ForbiddenWriteError)  # noqa: PT017
    assert await app.value("SELECT count(*) FROM t") == 3


@triggers
@pytest.mark.parametrize("door", [SWAP_IN], indirect=True)  # elsewhere the turn is the checkout
async def test_it_waits_for_its_turn(door: Door, statements: list[str]) -> None:
    """While another task writes, the statement that fires the trigger waits."""
    app = await opened(door)
    ready, go = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(_fire(app, statements, ready, go))
    await ready.wait()
    async with app.writer.connect() as other:
        await other.execute(text("UPDATE t SET x = x"))
        go.set()
        await until_waiting(1, turn_of(app.path))
        assert not task.done()
        await other.commit()
    await task
    assert await app.value("SELECT count(*) FROM t") == 4


async def _fire(
    app: Application, statements: list[str], ready: asyncio.Event, go: asyncio.Event
) -> None:
    async with app.writer.connect() as connection:
        for statement in statements:
            await connection.execute(text(statement))
        await connection.commit()  # or the snapshot would be stale when its turn comes
        ready.set()
        await go.wait()
        await connection.execute(text("INSERT INTO inbox VALUES (4)"))
        await connection.commit()


@pytest.mark.parametrize(
    "reading", [way for way in READERS if way[1] != "auto"], indirect=True, ids="-".join
)
@triggers
async def test_a_reader_refuses_it(reading: Door, statements: list[str]) -> None:
    """A reader may create the trigger, but the statement that fires it is refused by name."""
    app = await opened(reading)
    with pytest.raises(DBAPIError) as caught:
        async with app.enter() as connection:
            await connection.execute(text("SELECT x FROM t"))
            for statement in statements:
                await connection.execute(text(statement))
            await connection.execute(text("INSERT INTO inbox VALUES (4)"))
    assert isinstance(caught.value.orig, ForbiddenWriteError)
    assert await app.value("SELECT count(*) FROM t") == 3


async def test_a_temp_table_that_hides_another(door: Door) -> None:
    """The same text writes the temp table while it exists, and the other one afterwards."""
    app = await opened(door)
    insert = text("INSERT INTO t (x) VALUES (9)")
    async with app.writer.connect() as connection:
        await connection.execute(text("CREATE TEMP TABLE t (id, x)"))
        await connection.execute(insert)
        await connection.execute(text("DROP TABLE temp.t"))
        await connection.commit()
        assert (await connection.execute(text("SELECT count(*) FROM t"))).scalar_one() == 3
        await connection.execute(insert)
        assert is_locked(app.path)
        await connection.commit()
    assert await app.value("SELECT count(*) FROM t") == 4
