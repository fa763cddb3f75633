"""Reads within savepoints that do not fail in a statement: in a stream, on the connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from tests.servers.routed import Routed
from tests.servers.test_routing_savepoints import COUNT, SNAPSHOT, WRONG

# This fails in a later chunk.
LATE = text("SELECT 1 / (300 - n) FROM generate_series(1, 1000) AS n")
CHUNKS = {"yield_per": 10}


async def in_a_stream(session: AsyncSession, _: Routed) -> None:
    async for _row in await session.stream(LATE, execution_options=CHUNKS):
        pass


async def in_chunks(session: AsyncSession, _: Routed) -> None:
    def read(sync: Session) -> None:
        options = {"stream_results": True, **CHUNKS}
        for _row in sync.execute(LATE, execution_options=options):
            pass

    await session.run_sync(read)


async def on_the_connection(session: AsyncSession, routed: Routed) -> None:
    connection = await session.connection(bind_arguments={"bind": routed.reader.sync_engine})
    await connection.execute(WRONG)


async def in_the_driver(session: AsyncSession, routed: Routed) -> None:
    connection = await session.connection(bind_arguments={"bind": routed.reader.sync_engine})
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    await driver.execute(str(WRONG))


Fail = Callable[[AsyncSession, Routed], Awaitable[None]]
FAILURES = [in_a_stream, in_chunks, on_the_connection, in_the_driver]
WAYS = pytest.mark.parametrize("fail", FAILURES, ids=lambda fail: fail.__name__)


@WAYS
async def test_a_failure_ends_with_its_savepoint(routed: Routed, fail: Fail) -> None:
    """Later reads use the same snapshot, as does a stream that was opened before."""
    numbers = text("SELECT generate_series(1, 200)")
    async with routed.maker() as session:
        before = (await session.execute(SNAPSHOT)).one()
        stream = await session.stream(numbers, execution_options=CHUNKS)
        for _ in range(2):
            with pytest.raises(Exception, match="division by zero"):
                async with session.begin_nested():
                    assert (await session.execute(SNAPSHOT)).one() == before
                    await fail(session, routed)
            assert (await session.execute(SNAPSHOT)).one() == before
        assert len(await stream.all()) == 200


@WAYS
async def test_savepoints_in_savepoints(routed: Routed, fail: Fail) -> None:
    """A failure in the outer one, after the inner one, ends both."""
    async with routed.maker() as session:
        await session.execute(COUNT)
        with pytest.raises(Exception, match="division by zero"):
            async with session.begin_nested():
                await session.execute(COUNT)
                async with session.begin_nested():
                    await session.execute(COUNT)
                await fail(session, routed)
        await session.execute(COUNT)
        async with session.begin_nested():
            await session.execute(COUNT)
            with pytest.raises(Exception, match="division by zero"):
                async with session.begin_nested():
                    await fail(session, routed)
            await session.execute(COUNT)
        await session.execute(COUNT)


async def test_what_a_failure_costs(routed: Routed) -> None:
    """A known failure is rolled back at once; an unknown one, when the server reports it."""
    sent: list[str] = []
    event.listen(
        routed.reader.sync_engine,
        "before_cursor_execute",
        lambda _connection, _cursor, sql, *_: sent.append(sql.split()[0]),
    )
    for fail, end in (
        (lambda session, _: session.execute(WRONG), ["ROLLBACK"]),
        (in_a_stream, ["RELEASE", "ROLLBACK"]),
    ):
        async with routed.maker() as session:
            with pytest.raises(Exception, match="division by zero"):
                async with session.begin_nested():
                    await fail(session, routed)
            await session.execute(COUNT)
        assert sent == ["SAVEPOINT", "SELECT", *end, "SELECT"]
        del sent[:]


async def test_another_error_of_the_server_is_raised(routed: Routed) -> None:
    """A connection that has ended is not mistaken for a failed read."""
    async with routed.maker() as session:
        async with session.begin_nested():
            await session.execute(COUNT)
        await routed.end_readers()
        with pytest.raises(Exception, match=r"terminat|clos") as caught:
            await session.execute(COUNT)
        assert "RELEASE" in str(caught.value)
        await session.rollback()
        await session.execute(COUNT)
