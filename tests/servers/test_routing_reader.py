"""The reader of an auto session on a replica: when it is returned, and what its failures affect."""

from __future__ import annotations

import pytest
from sqlalchemy import event, func, literal, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from tests.postgresql import until

from .models import Account
from .routed import Routed, increase

# psycopg warns of a cursor that the test leaves open, as it does with a stock session.
OPEN_CURSOR = pytest.mark.filterwarnings("ignore:.*was deleted while still open")

ROWS = select(func.generate_series(1, 5000))


async def test_the_first_write_gives_the_reader_back(routed: Routed) -> None:
    """No transaction remains idle on the replica while the session writes."""
    async with routed.maker() as session:
        assert await session.scalar(select(Account.balance)) == 10
        assert await routed.in_transaction() == 1
        await increase(session)
        await until(lambda: _none_in_transaction(routed))
        await session.commit()
    assert routed.went == ["reader", "reader", "writer"]
    assert await routed.balance() == 11


async def _none_in_transaction(routed: Routed) -> bool:
    return await routed.in_transaction() == 0


async def test_locks_of_a_read_do_not_stop_the_replica(routed: Routed) -> None:
    """A table that was read can be altered while its session writes, and the replica replays it."""
    routed.app.sql("CREATE TABLE others (id int)")
    await routed.caught_up()
    async with routed.maker() as session:
        await session.execute(text("SELECT * FROM others"))
        await increase(session)
        routed.app.sql("ALTER TABLE others ADD COLUMN more int")
        await routed.caught_up()
        await session.commit()


async def test_savepoints_and_commits_go_to_the_writer(routed: Routed) -> None:
    """The reader gets a BEGIN, a ROLLBACK, a savepoint for reads in one, and nothing else."""
    heard: list[str] = []
    for name, engine in (("reader", routed.reader), ("writer", routed.writer)):
        for what in ("begin", "commit", "rollback", "savepoint", "release_savepoint"):
            event.listen(
                engine.sync_engine,
                what,
                lambda *_, name=name, what=what: heard.append(f"{name} {what}"),
            )
    async with routed.maker() as session:
        await session.scalar(select(Account.balance))
        async with session.begin_nested():
            await increase(session)
        await session.commit()
    of_reader = [one for one in heard if one.startswith("reader")]
    assert of_reader == ["reader begin", "reader savepoint", "reader rollback"]
    assert heard[-1] == "writer commit"


async def test_a_reader_that_is_killed_fails_no_write(routed: Routed) -> None:
    """A write and its COMMIT do not fail if the backend of an earlier read was ended."""
    for read_again in (False, True):
        async with routed.maker() as session:
            await _read(session)
            await routed.end_readers()
            if read_again:
                with pytest.raises(DBAPIError):
                    await session.scalar(select(Account.balance))
            await session.execute(update(Account).values(balance=Account.balance + 1))
            await session.commit()
    assert await routed.balance() == 12


@OPEN_CURSOR
async def test_a_stream_that_is_killed_fails_no_write(routed: Routed) -> None:
    """Nor does a write fail if a stream was open on the reader; only the stream does."""
    async with routed.maker() as session:
        stream = await session.stream(ROWS)
        await stream.fetchone()
        await routed.end_readers()
        await session.execute(update(Account).values(balance=Account.balance + 1))
        await session.commit()
        with pytest.raises(Exception, match=r"closed|terminat"):
            await stream.all()
    assert await routed.balance() == 11


async def _read(session: AsyncSession) -> None:
    """Read; as on a stock engine, the server may have ended the connection at rest."""
    try:
        await session.scalar(select(Account.balance))
    except DBAPIError:
        await session.rollback()
        await session.scalar(select(Account.balance))


async def test_a_session_that_only_read_ends_without_an_error(routed: Routed) -> None:
    """Its reads are complete, even if the server has ended the connection since."""
    for end in ("commit", "rollback", "close"):
        async with routed.maker() as session:
            await _read(session)
            await routed.end_readers()
            await getattr(session, end)()


async def test_a_failed_read_fails_no_write(routed: Routed) -> None:
    """An error of a statement on the reader aborts only the reader's transaction."""
    async with routed.maker() as session:
        await session.scalar(select(Account.balance))
        with pytest.raises(DBAPIError):
            await session.scalar(select(literal(1) / literal(0)))
        await session.execute(update(Account).values(balance=Account.balance + 1))
        await session.commit()
    assert await routed.balance() == 11


# -- streams ------------------------------------------------------------------------------------


async def test_a_stream_goes_on_across_the_first_write_and_the_commit(routed: Routed) -> None:
    """It keeps its connection and its snapshot until it ends."""
    async with routed.maker() as session:
        stream = await session.stream_scalars(ROWS)
        assert await stream.fetchmany(3) == [1, 2, 3]
        await session.execute(update(Account).values(balance=0))
        assert await stream.fetchmany(2) == [4, 5]
        assert await session.scalar(select(Account.balance)) == 0
        await session.commit()
        assert await routed.in_transaction() == 1
        assert len(await stream.all()) == 4995
        await session.scalar(select(Account.balance))
        await session.execute(update(Account).values(balance=1))
        await until(lambda: _none_in_transaction(routed))
        await session.commit()


async def _end_by_reading(session: AsyncSession) -> None:
    async for _ in await session.stream(ROWS.execution_options(yield_per=1000)):
        pass


async def _end_by_closing(session: AsyncSession) -> None:
    stream = await session.stream(ROWS)
    await stream.fetchone()
    await stream.close()


async def _end_by_dropping(session: AsyncSession) -> None:
    await (await session.stream(ROWS)).fetchone()


async def _end_by_failing(session: AsyncSession) -> None:
    numbers = func.generate_series(-500, 500).column_valued("n")
    stream = await session.stream(select(1000 / numbers))
    with pytest.raises(Exception, match="division by zero"):
        await stream.all()
    await stream.close()


@OPEN_CURSOR
async def test_a_stream_that_has_ended_keeps_no_reader(routed: Routed) -> None:
    """The first write returns the stream's connection, however the stream has ended."""
    for end in (_end_by_reading, _end_by_closing, _end_by_dropping, _end_by_failing):
        async with routed.maker() as session:
            await end(session)
            await session.execute(update(Account).values(balance=0))
            await until(lambda: _none_in_transaction(routed))


async def test_a_stream_that_ends_later_keeps_no_reader(routed: Routed) -> None:
    """The next use of the writer returns its connection."""
    async with routed.maker() as session:
        stream = await session.stream(ROWS)
        await session.execute(update(Account).values(balance=0))
        await stream.all()
        assert await routed.in_transaction() == 1
        await session.execute(update(Account).values(balance=1))
        await until(lambda: _none_in_transaction(routed))


async def test_objects_of_a_stream_and_queries(routed: Routed) -> None:
    """ORM results are recognised as streams, too: entities, and ``Query.yield_per()``."""
    routed.app.sql("INSERT INTO accounts SELECT n, n FROM generate_series(2, 300) n")
    await routed.caught_up()
    async with routed.maker() as session:
        stream = await session.stream_scalars(
            select(Account).order_by(Account.id), execution_options={"yield_per": 10}
        )
        assert (await stream.fetchmany(1))[0].id == 1
        await session.execute(update(Account).where(Account.id == 1).values(balance=0))
        assert len(await stream.all()) == 299
        await session.commit()

        def count(sync: object) -> int:
            found = 0
            for _ in sync.query(Account).yield_per(10):  # type: ignore[attr-defined]
                found += 1
                if found == 1:
                    sync.execute(text("UPDATE accounts SET balance = 1 WHERE id = 2"))  # type: ignore[attr-defined]
            return found

        assert await session.run_sync(count) == 300
        await session.commit()


@OPEN_CURSOR
async def test_close_ends_streams(routed: Routed) -> None:
    """A stream ends with its session's ``close()``, and its connection is returned."""
    async with routed.maker() as session:
        stream = await session.stream(ROWS)
        await session.execute(update(Account).values(balance=0))
        await session.commit()
        assert await routed.in_transaction() == 1
        await session.close()
        await until(lambda: _none_in_transaction(routed))
        del stream
