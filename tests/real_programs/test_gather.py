"""asyncio.gather() over one connection or session: as on stock, or refused with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError, SQLAlchemyError

from .doors import Application, Door

TIMES = 6


async def opened(door: Door) -> Application:
    app = await door.open()
    await app.write("CREATE TABLE t (id INTEGER PRIMARY KEY, x)")
    return app


def check(results: Sequence[Any], *, stock: bool) -> int:
    """Return how many succeeded; the others were refused with a message that states why."""
    errors = [result for result in results if isinstance(result, BaseException)]
    for error in errors:
        assert isinstance(error, SQLAlchemyError), error
        assert "cannot start a transaction" not in str(error)
        if not stock:
            assert isinstance(error, InvalidRequestError), error
            assert any(word in str(error) for word in ("concurrent", "same time", "at once")), error
    return len(results) - len(errors)


async def together(executor: Any, sql: str) -> Sequence[Any]:
    statements = [executor.execute(text(sql), {"x": number}) for number in range(TIMES)]
    return await asyncio.gather(*statements, return_exceptions=True)


async def test_reads_on_a_connection(door: Door) -> None:
    """Each gets its own result."""
    app = await opened(door)
    async with app.reader.connect() as connection:
        results = await together(connection, "SELECT :x + count(*) FROM t")
        assert check(results, stock=door.stock) >= 1
        for number, result in enumerate(results):
            if not isinstance(result, BaseException):
                assert result.scalar() == number
    assert await app.value("SELECT 1") == 1


async def test_writes_on_a_connection(door: Door) -> None:
    """Successful writes are present after the commit, once."""
    app = await opened(door)
    async with app.writer.begin() as connection:
        results = await together(connection, "INSERT INTO t (x) VALUES (:x)")
    done = check(results, stock=door.stock)
    assert done >= 1
    assert await app.value("SELECT count(*) FROM t") == done


async def test_writes_on_a_connection_that_has_begun(door: Door) -> None:
    """The same applies after a first statement."""
    app = await opened(door)
    async with app.writer.begin() as connection:
        await connection.execute(text("INSERT INTO t (x) VALUES (-1)"))
        results = await together(connection, "INSERT INTO t (x) VALUES (:x)")
    assert await app.value("SELECT count(*) FROM t") == check(results, stock=door.stock) + 1


async def test_reads_in_a_session(door: Door) -> None:
    """The session has a connection."""
    app = await opened(door)
    async with app.session() as session:
        await session.execute(text("SELECT count(*) FROM t"))
        assert check(await together(session, "SELECT :x FROM t"), stock=door.stock) >= 1
    assert await app.value("SELECT 1") == 1


async def test_writes_in_a_session(door: Door) -> None:
    """The same applies to writes, which are committed, and the next session writes."""
    app = await opened(door)
    async with app.session() as session:
        await session.execute(text("INSERT INTO t (x) VALUES (-1)"))
        results = await together(session, "INSERT INTO t (x) VALUES (:x)")
        await session.commit()
    assert await app.value("SELECT count(*) FROM t") == check(results, stock=door.stock) + 1
    await app.write("INSERT INTO t (x) VALUES (9)")


async def test_reads_and_writes_in_a_session(door: Door) -> None:
    """A session that has read, then reads and writes at the same time, stays consistent."""
    app = await opened(door)
    async with app.session() as session:
        await session.execute(text("SELECT count(*) FROM t"))
        statements = [
            session.execute(text("SELECT count(*) FROM t")),
            session.execute(text("INSERT INTO t (x) VALUES (1)")),
            session.execute(text("SELECT count(*) FROM t")),
            session.execute(text("INSERT INTO t (x) VALUES (2)")),
        ]
        results = await asyncio.gather(*statements, return_exceptions=True)
        check(results, stock=door.stock)
        written = sum(not isinstance(results[index], BaseException) for index in (1, 3))
        await session.commit()
    assert await app.value("SELECT count(*) FROM t") == written


async def test_sessions_side_by_side(door: Door) -> None:
    """A session for each task is what SQLAlchemy requires, and works."""
    app = await opened(door)

    async def work(number: int) -> None:
        async with app.transaction() as session:
            await session.execute(text("INSERT INTO t (x) VALUES (:x)"), {"x": number})

    await asyncio.gather(*(work(number) for number in range(TIMES)))
    assert await app.value("SELECT count(*) FROM t") == TIMES
