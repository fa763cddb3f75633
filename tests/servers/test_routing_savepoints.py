"""Reads of auto sessions within savepoints: an error ends with its savepoint, as elsewhere."""

from __future__ import annotations

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import DBAPIError

from tests.servers.models import Account
from tests.servers.routed import Routed

WRONG = text("SELECT 1 / 0")
COUNT = text("SELECT count(*) FROM accounts")
SNAPSHOT = text("SELECT pg_backend_pid(), now()")  # now(): the start of the transaction


async def test_a_failed_read_ends_with_its_savepoint(routed: Routed) -> None:
    """Later reads use the same connection and the same transaction, until the first write."""
    async with routed.maker() as session:
        before = (await session.execute(SNAPSHOT)).one()
        for _ in range(2):
            with pytest.raises(DBAPIError):
                async with session.begin_nested():
                    assert (await session.execute(SNAPSHOT)).one() == before
                    await session.execute(WRONG)
            assert (await session.execute(SNAPSHOT)).one() == before
        session.add(Account(id=7))
        await session.flush()
        assert await session.scalar(select(Account.id).where(Account.id == 7)) == 7
        await session.rollback()


async def test_the_first_read_fails(routed: Routed) -> None:
    """This also works if the reader is checked out within the savepoint."""
    async with routed.maker() as session:
        with pytest.raises(DBAPIError):
            async with session.begin_nested():
                await session.execute(WRONG)
        assert isinstance(await session.scalar(COUNT), int)


async def test_savepoints_in_savepoints(routed: Routed) -> None:
    """An error is undone with its savepoint, whether that is the inner or the outer one."""
    async with routed.maker() as session:
        async with session.begin_nested():
            with pytest.raises(DBAPIError):
                async with session.begin_nested():
                    await session.execute(WRONG)
            await session.execute(COUNT)
            async with session.begin_nested(), session.begin_nested():
                await session.execute(COUNT)
        with pytest.raises(DBAPIError):
            async with session.begin_nested():
                async with session.begin_nested():
                    await session.execute(COUNT)
                await session.execute(WRONG)
        await session.execute(COUNT)


async def test_an_error_outside_of_savepoints(routed: Routed) -> None:
    """It aborts the reader's transaction, as everywhere, until rollback()."""
    async with routed.maker() as session:
        with pytest.raises(DBAPIError):
            await session.execute(WRONG)
        with pytest.raises(DBAPIError, match="aborted"):
            await session.execute(COUNT)
        with pytest.raises(DBAPIError, match="aborted"):
            async with session.begin_nested():
                await session.execute(COUNT)
        await session.rollback()
        await session.execute(COUNT)


async def test_what_it_costs(routed: Routed) -> None:
    """It costs nothing without a savepoint; with one, a SAVEPOINT, released by the next read."""
    sent: list[str] = []
    event.listen(
        routed.reader.sync_engine,
        "before_cursor_execute",
        lambda _connection, _cursor, sql, *_: sent.append(sql.split()[0]),
    )
    async with routed.maker() as session:
        await session.execute(COUNT)
        async with session.begin_nested():
            pass
        await session.execute(COUNT)
        assert sent == ["SELECT", "SELECT"]
        del sent[:]
        async with session.begin_nested():
            await session.execute(COUNT)
            await session.execute(COUNT)
        await session.execute(COUNT)
        assert sent == ["SAVEPOINT", "SELECT", "SELECT", "RELEASE", "SELECT"]


async def test_a_stream_across_a_savepoint(routed: Routed) -> None:
    """A stream that was opened in or before a savepoint can be read after the savepoint ends."""
    numbers = text("SELECT generate_series(1, 200)")
    async with routed.maker() as session:
        before = await session.stream(numbers)
        async with session.begin_nested():
            within = await session.stream(numbers)
            assert (await within.fetchone()) is not None
        await session.execute(COUNT)
        assert len(await within.all()) == 199
        assert len(await before.all()) == 200
