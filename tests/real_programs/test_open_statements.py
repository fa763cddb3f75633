"""A task's own open statement is an obstacle, which is reported at once, as on stock."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from sa_sqlite_pool import TurnAlreadyHeldError
from tests.waiting import pauses

from .doors import ENGINES, FACADE, OURS, SWAP_IN, Application, Door, at_once

without_stock = pytest.mark.parametrize("door", OURS, indirect=True)
INSERT = "INSERT INTO t (x) VALUES (1), (2), (3) RETURNING id"


async def opened(door: Door, **options: object) -> Application:
    app = await door.open(own={"write_timeout": 30.0, "read_timeout": 30.0, **options})
    await app.write(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, x)",
        "INSERT INTO t (x) WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500) "
        "SELECT i FROM n",
    )
    return app


async def test_rows_of_returning_that_are_not_read(changing: Door) -> None:
    """COMMIT is refused while INSERT … RETURNING still has rows, and the error says so."""
    app = await opened(changing)

    async def work() -> None:
        async with app.enter() as connection:
            result = await connection.stream(text(INSERT))
            async for _ in result:
                break
            await connection.commit()

    with pytest.raises(OperationalError, match="in progress") as caught:
        await at_once(work())
    if not changing.stock:  # which leaves the statement open on the connection in its pool
        assert "RETURNING" in str(caught.value)
        await app.write("INSERT INTO t (x) VALUES (4)")
        assert await app.value("SELECT count(*) FROM t") == 501


async def test_rows_of_returning_that_are_read(changing: Door) -> None:
    """If they are read to the end, it commits."""
    app = await opened(changing)
    async with app.enter() as connection:
        result = await connection.stream(text(INSERT))
        assert len([row async for row in result]) == 3
        await connection.commit()
    assert await app.value("SELECT count(*) FROM t") == 503


async def test_a_result_that_is_closed_is_not_in_the_way(changing: Door) -> None:
    """close() ends the statement, which can then be committed."""
    app = await opened(changing)
    async with app.enter() as connection:
        result = await connection.stream(text(INSERT))
        async for _ in result:
            break
        await result.close()
        await connection.commit()
    assert await app.value("SELECT count(*) FROM t") == 503


async def test_a_buffered_result_is_not_in_the_way(changing: Door) -> None:
    """execute() fetches all rows, so unread ones do not matter."""
    app = await opened(changing)
    async with app.enter() as connection:
        result = await connection.execute(text(INSERT))
        assert result.first() is not None
        await connection.commit()
    assert await app.value("SELECT count(*) FROM t") == 503


async def test_dropping_a_table_that_is_read(changing: Door) -> None:
    """DROP TABLE during an open stream of the same connection is refused at once."""
    app = await opened(changing)
    await app.write("CREATE TABLE other (x)")

    async def work() -> None:
        async with app.enter() as connection:
            # Of one connection: an auto session reads on another one until it has written.
            await connection.execute(text("INSERT INTO other VALUES (1)"))
            result = await connection.stream(text("SELECT * FROM t"))
            async for _ in result:
                break
            await connection.execute(text("DROP TABLE t"))

    with pytest.raises(DBAPIError, match=r"locked|open|progress") as caught:
        await at_once(work())
    if not changing.stock:
        assert "SELECT * FROM t" in str(caught.value)
    assert await app.value("SELECT count(*) FROM t") == 500


@without_stock
async def test_the_own_write_transaction_on_another_connection(door: Door) -> None:
    """A task that holds the turn and requests it on a second connection gets an error at once."""
    app = await opened(door)

    async def work() -> None:
        async with app.writer.connect() as first:
            await first.execute(text("UPDATE t SET x = 0"))
            async with app.session() as second:
                await second.execute(text("UPDATE t SET x = 1"))

    with pytest.raises(TurnAlreadyHeldError):
        await at_once(work())
    await app.write("UPDATE t SET x = 2")


@pytest.mark.parametrize("door", [SWAP_IN, ENGINES, FACADE], indirect=True)
async def test_the_own_reader_keeps_a_commit_waiting_without_wal(door: Door) -> None:
    """Without WAL a COMMIT waits for readers; for the task's own one it would wait for ever."""
    app = await opened(door, pragmas={"journal_mode": "TRUNCATE"})

    async def work() -> None:
        async with app.reader.connect() as reader:
            result = await reader.stream(text("SELECT * FROM t"))
            async for _ in result:
                break
            async with app.writer.begin() as writer:
                await writer.execute(text("UPDATE t SET x = 0"))

    with pytest.raises(DBAPIError, match=r"SELECT \* FROM t"):
        await at_once(work())
    await app.write("UPDATE t SET x = 2")
    assert await app.value("SELECT count(*) FROM t WHERE x = 2") == 500


@without_stock
async def test_a_reader_of_another_task_is_waited_for_without_wal(door: Door) -> None:
    """That reader will end, so the COMMIT waits and then succeeds."""
    app = await opened(door, pragmas={"journal_mode": "TRUNCATE"})
    reading, stop = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        async with app.reader.connect() as reader:
            result = await reader.stream(text("SELECT * FROM t"))
            async for _ in result:
                break
            reading.set()
            await stop.wait()

    reader = asyncio.create_task(read())
    await reading.wait()
    with pauses(stop.set):
        await app.write("UPDATE t SET x = 0")
    await reader
    assert await app.value("SELECT count(*) FROM t WHERE x = 0") == 500
