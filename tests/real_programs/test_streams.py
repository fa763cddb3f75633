"""Rows are streamed and written back in batches."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from .doors import Application, Door

ROWS, BATCH = 1_000, 100
SELECT = text("SELECT id FROM t ORDER BY id")
UPDATE = text("UPDATE t SET x = x + 1 WHERE id BETWEEN :first AND :last")


async def opened(door: Door) -> Application:
    app = await door.open()
    await app.write(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, x INTEGER)",
        "INSERT INTO t (x) WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
        f"LIMIT {ROWS}) SELECT 0 FROM n",
    )
    return app


async def batches(executor: Any) -> AsyncIterator[dict[str, int]]:
    result = await executor.stream(SELECT, execution_options={"yield_per": BATCH})
    async for rows in result.partitions(BATCH):
        yield {"first": rows[0].id, "last": rows[-1].id}


async def changed(app: Application) -> int:
    return int(await app.value("SELECT sum(x) FROM t"))


async def test_a_stream_over_a_second_connection(door: Door) -> None:
    """A reader streams, a session writes each batch and commits."""
    app = await opened(door)
    async with app.reader.connect() as reader:
        async for batch in batches(reader):
            async with app.transaction() as session:
                await session.execute(UPDATE, batch)
    assert await changed(app) == ROWS


async def test_writing_without_a_commit_in_between(door: Door) -> None:
    """Stream and updates share one transaction of one connection."""
    app = await opened(door)
    async with app.writer.begin() as connection:
        async for batch in batches(connection):
            await connection.execute(UPDATE, batch)
    assert await changed(app) == ROWS


async def until_refused(work: Any) -> bool:
    """Return False if it was refused with a message about the stream."""
    try:
        await work
    except SQLAlchemyError as error:
        message = str(error)
        assert any(word in message for word in ("stream", "result", "fetched"))
        assert any(word in message for word in ("commit", "rollback", "ended"))
        return False
    return True


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_a_stream_of_a_connection_that_goes_on(door: Door, end: str) -> None:
    """It continues after the end of the transaction, as on stock, or the error states why not."""
    app = await opened(door)

    async def work() -> None:
        async with app.writer.connect() as connection:
            count = 0
            async for batch in batches(connection):
                count += 1
                await connection.execute(UPDATE, batch)
                await getattr(connection, end)()
            assert count == ROWS / BATCH

    if await until_refused(work()):
        assert await changed(app) == (ROWS if end == "commit" else 0)


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_a_stream_of_a_session_that_goes_on(door: Door, end: str) -> None:
    """The same applies to a session, which may read on one connection and write on another."""
    app = await opened(door)

    async def work() -> None:
        async with app.session() as session:
            count = 0
            async for batch in batches(session):
                count += 1
                await session.execute(UPDATE, batch)
                await getattr(session, end)()
            assert count == ROWS / BATCH

    if await until_refused(work()):
        assert await changed(app) == (ROWS if end == "commit" else 0)


async def test_the_first_write_of_a_session_that_streams(door: Door) -> None:
    """An auto session that streams and then writes first reads on, or the error states why not."""
    app = await opened(door)

    async def work() -> None:
        async with app.session() as session:
            seen = 0
            async for batch in batches(session):
                seen += batch["last"] - batch["first"] + 1
                await session.execute(UPDATE, batch)
            assert seen == ROWS
            await session.commit()

    if await until_refused(work()):
        assert await changed(app) == ROWS


async def test_a_reader_streams_over_its_own_end(reading: Door) -> None:
    """A stream that only reads continues after rollback, or the error states why not."""
    app = await opened(reading)

    async def work() -> None:
        async with app.enter() as connection:
            seen = 0
            async for _ in batches(connection):
                seen += 1
                if seen == 2:
                    await connection.rollback()
            assert seen == ROWS / BATCH

    await until_refused(work())
    assert await app.value("SELECT count(*) FROM t") == ROWS


async def test_a_stream_that_is_left_early(reading: Door) -> None:
    """It is closed with its block, and the connection serves the next."""
    app = await opened(reading)
    for _ in range(20):
        async with app.enter() as connection:
            result = await connection.stream(SELECT)
            async for _row in result:
                break
            await result.close()
    await app.write("UPDATE t SET x = 1")
    assert await changed(app) == ROWS
