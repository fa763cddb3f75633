"""The reader's connection of an auto session: when it is taken, left, and given back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, func, select, text, update
from sqlalchemy.exc import IntegrityError, InvalidRequestError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, SessionTransaction

from sa_sqlite_pool import (
    OpenReadError,
    ReaderPool,
    StaleReadError,
    WriterPool,
    WriteTimeout,
    routing_sessionmaker,
)
from sa_sqlite_pool.driver.adapter import SQLiteConnection
from tests.cancelling import cancelled_at
from tests.conftest import MakeEngine
from tests.helpers import (
    ENDLESS,
    UPDATE_FIRST,
    Item,
    amounts,
    create_items,
    turn_of,
    until,
    until_free,
    until_waiting,
)
from tests.sessions.beside import Heard, Maker, checked_out

TOTAL = select(func.sum(Item.amount))
MANY = 300


@pytest.fixture
async def maker(writer: AsyncEngine, reader: AsyncEngine) -> Maker:
    await create_items(writer)
    return routing_sessionmaker(writer=writer, reader=reader)


@pytest.fixture
def heard(maker: Maker, writer: AsyncEngine, reader: AsyncEngine) -> Heard:
    return Heard().watch(writer=writer, reader=reader)


async def read(session: AsyncSession) -> int:
    return int(await session.scalar(TOTAL) or 0)


async def write(session: AsyncSession) -> None:
    await session.execute(UPDATE_FIRST)


async def committed(maker: Maker) -> None:
    """Another session adds one."""
    async with maker(role="writer") as other, other.begin():
        await write(other)


async def stream(session: AsyncSession) -> Any:
    """One of many rows has been read."""
    result = await session.stream(
        text(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300) "
            "SELECT i, (SELECT sum(amount) FROM items) AS total FROM n"
        ),
        execution_options={"yield_per": 10},
    )
    assert await result.fetchone() is not None
    return result


# -- stages of a transaction ---------------------------------------------------------------------


async def test_it_is_taken_by_the_first_read_and_left_by_the_first_write(
    maker: Maker, writer: AsyncEngine, reader: AsyncEngine
) -> None:
    """And given back at once, for others to read while this one waits for its turn."""
    async with maker() as session:
        assert checked_out(reader) == 0
        await read(session)
        assert (checked_out(reader), checked_out(writer)) == (1, 0)
        await write(session)
        assert (checked_out(reader), checked_out(writer)) == (0, 1)
        assert await read(session) == 1
        assert checked_out(reader) == 0


async def test_who_waits_for_the_turn_keeps_nobody_from_reading(
    make_engine: MakeEngine, path: Path
) -> None:
    """Free readers: four sessions that read and wait to write hold none of four readers."""
    writer = make_engine(WriterPool)
    reader = make_engine(ReaderPool, pool_size=4, read_timeout=5.0)
    await create_items(writer)
    maker = routing_sessionmaker(writer=writer, reader=reader)

    async def read_and_write() -> None:
        async with maker() as session:
            await read(session)
            await write(session)
            await session.commit()

    async with maker(role="writer") as holder:
        await write(holder)
        waiting = [asyncio.create_task(read_and_write()) for _ in range(4)]
        await until_waiting(4, turn_of(path))
        assert checked_out(reader) == 0
        async with maker(role="reader") as session:
            assert await read(session) == 0
        await holder.rollback()
        await asyncio.gather(*waiting)
    assert (await amounts(writer))[0] == 4


async def test_reads_of_one_transaction_see_one_snapshot(maker: Maker) -> None:
    """Isolated reads, in an auto session, with savepoints around them."""
    async with maker() as session:
        assert await read(session) == 0
        await committed(maker)
        assert await read(session) == 0
        async with session.begin_nested():
            assert await read(session) == 0
        await session.rollback()
        assert await read(session) == 1


async def test_a_result_that_is_unread_survives_the_first_write(maker: Maker) -> None:
    """Its rows are there, as those of a stock session after a commit."""
    async with maker() as session:
        rows = await session.execute(select(Item.id))
        items = await session.scalars(select(Item))
        await write(session)
        await session.commit()
        assert rows.all() == [(1,), (2,), (3,)]
        assert [item.id for item in items] == [1, 2, 3]


async def test_several_transactions_of_a_session(
    maker: Maker, heard: Heard, writer: AsyncEngine, reader: AsyncEngine
) -> None:
    """Each begins on the reader, however the last has ended."""
    async with maker() as session:
        ends: list[Callable[[], Awaitable[None]]] = [
            session.commit,
            session.rollback,
            session.close,
            session.reset,
            session.invalidate,
        ]
        for end in ends:
            await read(session)
            await write(session)
            assert session.in_transaction()
            await end()
            assert not session.in_transaction()
            await until_free_of(writer, reader)
            await read(session)
            await end()
            await until_free_of(writer, reader)
    assert heard.of("reader").count("begin") == 2 * len(ends)
    assert heard.of("writer").count("commit") == 1


async def until_free_of(*engines: AsyncEngine) -> None:
    await until(lambda: checked_out(*engines) == 0)


async def test_a_read_begins_the_transaction(maker: Maker) -> None:
    """``in_transaction()``, ``begin()`` and ``autobegin=False`` say what a stock session's say."""
    async with maker() as session:
        await read(session)
        assert session.in_transaction()
        with pytest.raises(InvalidRequestError, match="already begun on this Session"):
            await session.begin()
    async with maker(autobegin=False) as session:
        with pytest.raises(InvalidRequestError, match="Autobegin is disabled"):
            await read(session)
        async with session.begin():
            await read(session)
        assert not session.in_transaction()


async def test_a_block_that_was_ended_inside_is_not_read_on(
    maker: Maker, reader: AsyncEngine
) -> None:
    """As on stock: what follows would be another transaction."""
    async with maker() as session, session.begin():
        await read(session)
        await session.commit()
        with pytest.raises(InvalidRequestError, match="closed transaction inside context manager"):
            await read(session)
        assert checked_out(reader) == 0


async def test_a_session_that_closes_for_good(maker: Maker, reader: AsyncEngine) -> None:
    """``close_resets_only=False`` is SQLAlchemy's, and stays."""
    async with maker(close_resets_only=False) as session:
        await read(session)
    assert checked_out(reader) == 0
    with pytest.raises(InvalidRequestError, match="permanently closed"):
        await read(session)


async def test_after_a_flush_that_failed_reads_are_refused(
    maker: Maker, heard: Heard, reader: AsyncEngine
) -> None:
    """As on stock, until ``rollback()``; and no reader is taken for that."""
    async with maker() as session:
        await read(session)
        session.add(Item(id=1))
        with pytest.raises(IntegrityError):
            await session.flush()
        with pytest.raises(PendingRollbackError):
            await read(session)
        assert checked_out(reader) == 0
        await session.rollback()
        assert await read(session) == 0


async def test_after_a_flush_that_failed_in_a_savepoint_reads_are_refused(maker: Maker) -> None:
    """Until the savepoint is rolled back, although the transaction around it goes on."""
    async with maker() as session:
        nested = await session.begin_nested()
        session.add(Item(id=1))
        with pytest.raises(IntegrityError):
            await session.flush()
        for use in (read, write):
            with pytest.raises(PendingRollbackError):
                await use(session)
        await nested.rollback()
        assert await read(session) == 0


async def test_a_savepoint_that_was_ended_inside_its_block_is_not_read_on(maker: Maker) -> None:
    """As on stock, before the first write, too."""
    async with maker() as session:
        async with session.begin_nested() as nested:
            await nested.rollback()
            for use in (read, write):
                with pytest.raises(InvalidRequestError, match="inside context manager"):
                    await use(session)
        assert await read(session) == 0


async def test_invalidating_throws_the_readers_connection_away(
    maker: Maker, reader: AsyncEngine
) -> None:
    """As those of any transaction; ``close()`` gives it back as it is."""

    async def adapter(session: AsyncSession) -> SQLiteConnection:
        await read(session)
        assert isinstance(reader.pool, ReaderPool)
        (loan,) = reader.pool.loans
        assert loan.connection is not None
        return loan.connection

    async with maker() as session:
        first = await adapter(session)
        await session.close()
        assert await adapter(session) is first
        await session.invalidate()
        assert first.given_up
        await until_free_of(reader)
        assert await adapter(session) is not first


async def test_a_write_that_timed_out_does_not_send_reads_elsewhere(
    make_engine: MakeEngine, writer: AsyncEngine, reader: AsyncEngine
) -> None:
    """It reads nothing newer in the same transaction: it stays with the writer until its end."""
    await create_items(writer)
    impatient = make_engine(WriterPool, write_timeout=0.05)
    maker = routing_sessionmaker(writer=impatient, reader=reader)

    async def wait_in_vain() -> None:
        async with maker() as session:
            assert await read(session) == 0
            with pytest.raises(WriteTimeout):
                await write(session)
            with pytest.raises(WriteTimeout):
                await read(session)
            await session.rollback()
            assert await read(session) == 0

    async with writer.connect() as holder:
        await holder.execute(UPDATE_FIRST)
        await asyncio.create_task(wait_in_vain())
    assert checked_out(reader, impatient) == 0


async def test_the_reader_takes_options_of_the_connection(
    maker: Maker, reader: AsyncEngine
) -> None:
    """``connection(execution_options=…)`` with the reader's bind; a second time it warns."""
    arguments = {"bind": reader.sync_engine}
    async with maker() as session:
        options = {"statement_timeout": 3.0}
        connection = await session.connection(dict(arguments), execution_options=options)
        given = await connection.run_sync(lambda sync: sync.get_execution_options())
        assert given["statement_timeout"] == 3.0
        await read(session)
        assert checked_out(reader) == 1
        with pytest.warns(match="execution_options ignored"):
            await session.connection(dict(arguments), execution_options=options)


# -- events --------------------------------------------------------------------------------------


async def test_after_begin_tells_of_each_connection(maker: Maker) -> None:
    """Once for the reader's, once for the writer's, with the root transaction."""
    begun: list[tuple[str, bool]] = []

    def after_begin(_: Session, transaction: SessionTransaction, connection: Connection) -> None:
        role = "reader" if connection.engine is maker.kw["reader"].sync_engine else "writer"
        begun.append((role, transaction.parent is None))

    async with maker() as session:
        event.listen(session.sync_session, "after_begin", after_begin)
        for _ in range(2):
            await read(session)
            await read(session)
            await write(session)
            await read(session)
            await session.commit()
    assert begun == 2 * [("reader", True), ("writer", True)]


async def test_a_listener_that_raises_leaves_nothing_checked_out(
    maker: Maker, writer: AsyncEngine, reader: AsyncEngine
) -> None:
    """In ``after_begin`` of the reader."""

    def refuse(*_: object) -> None:
        raise ZeroDivisionError

    async with maker() as session:
        event.listen(session.sync_session, "after_begin", refuse)
        with pytest.raises(ZeroDivisionError):
            await read(session)
    assert checked_out(writer, reader) == 0


async def test_a_listener_to_the_engine_that_raises_leaves_nothing_checked_out(
    maker: Maker, reader: AsyncEngine
) -> None:
    """In ``begin`` of the reader engine."""

    def refuse(_: Connection) -> None:
        raise ZeroDivisionError

    event.listen(reader.sync_engine, "begin", refuse)
    async with maker() as session:
        with pytest.raises(ZeroDivisionError):
            await read(session)
        assert checked_out(reader) == 0
        event.remove(reader.sync_engine, "begin", refuse)
        assert await read(session) == 0


async def test_when_the_transaction_has_ended_so_has_the_read(
    make_engine: MakeEngine, writer: AsyncEngine
) -> None:
    """A listener to its end may read in the next one, with the only reader there is."""
    reader = make_engine(ReaderPool, pool_size=1, read_timeout=1.0)
    await create_items(writer)
    maker = routing_sessionmaker(writer=writer, reader=reader)
    ended: list[int] = []

    def after_end(session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None and not ended:
            ended.append(checked_out(reader))
            session.execute(TOTAL)

    async with maker() as session:
        event.listen(session.sync_session, "after_transaction_end", after_end)
        await read(session)
        await session.rollback()
        assert session.in_transaction()
    assert ended == [0]
    assert checked_out(reader) == 0


# -- errors, cancellations, two tasks -------------------------------------------------------------


async def test_two_tasks_at_once_are_refused_as_on_stock(
    make_engine: MakeEngine, writer: AsyncEngine
) -> None:
    """While one takes the reader, the other is told so; nothing is taken twice, or lost."""
    reader = make_engine(ReaderPool, pool_size=1)
    await create_items(writer)
    maker = routing_sessionmaker(writer=writer, reader=reader)
    async with maker() as session:
        async with reader.connect() as _:
            first = asyncio.create_task(read(session))
            await until(lambda: reader.pool.waiting == 1)  # type: ignore[attr-defined]
            with pytest.raises(InvalidRequestError, match="provisioning a new connection"):
                await read(session)
            with pytest.raises(InvalidRequestError):
                await session.rollback()
        assert await first == 0
        await session.rollback()
    assert checked_out(reader) == 0


async def whole(maker: Maker) -> None:
    """All stages of an auto session, one after the other."""
    async with maker() as session:
        async with session.begin():
            await read(session)
            async with session.begin_nested():
                await read(session)
                await write(session)
            await read(session)
        result = await stream(session)
        async for _ in result:
            pass
        await write(session)
        await session.commit()
        await read(session)
        await stream(session)
        await session.rollback()
        await read(session)


@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize("mode", ["WAL", "TRUNCATE"])
async def test_cancelled_at_every_await(
    make_engine: MakeEngine, path: Path, stubborn: bool, mode: str
) -> None:
    """Nothing stays checked out, the turn is free, and what was not committed is not there."""
    options: dict[str, Any] = {"placement": "thread", "pragmas": {"journal_mode": mode}}
    writer, reader = make_engine(WriterPool, **options), make_engine(ReaderPool, **options)
    await create_items(writer)
    maker = routing_sessionmaker(writer=writer, reader=reader)
    await whole(maker)  # so that later on no connection has to be opened first
    number, before = 1, 2
    while await cancelled_at(whole(maker), number, stubborn):
        await until_free_of(writer, reader)
        await until_free(path)
        after = (await amounts(writer))[0]
        assert 0 <= after - before <= 2
        number, before = number + 1, after
    assert number > 10
    await whole(maker)
    assert (await amounts(writer))[0] == before + 4
    assert checked_out(writer, reader) == 0


@pytest.mark.needs_thread
async def test_a_cancelled_read_ends_the_transaction(maker: Maker, reader: AsyncEngine) -> None:
    """As on stock: neither a read nor a write goes on in it until ``rollback()``."""
    async with maker() as session:
        assert isinstance(reader.pool, ReaderPool)
        loans = reader.pool.loans
        reading = asyncio.create_task(session.scalar(ENDLESS))
        await until(lambda: any(loan.permit.last_sql for loan in loans))
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        for use in (read, write):
            with pytest.raises(PendingRollbackError):
                await use(session)
        await session.rollback()
        assert await read(session) == 0
        await write(session)
    assert checked_out(reader) == 0


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
async def test_an_error_gives_everything_back(
    maker: Maker, writer: AsyncEngine, reader: AsyncEngine, error: type[BaseException]
) -> None:
    """Before and after the first write, in a savepoint, with a stream."""

    async def fail(stage: int) -> None:
        async with maker() as session, session.begin():
            await read(session)
            if stage == 0:
                raise error
            async with session.begin_nested():
                await stream(session)
                if stage == 1:
                    raise error
                await write(session)
                raise error

    for stage in range(3):
        with pytest.raises(error):
            await fail(stage)
        assert checked_out(writer, reader) == 0
    assert (await amounts(writer))[0] == 0


# -- streams -------------------------------------------------------------------------------------


async def test_a_stream_goes_on_across_the_first_write(maker: Maker, reader: AsyncEngine) -> None:
    """On its connection, in its snapshot, while the rest of the session sees what it wrote."""
    async with maker() as session:
        result = await stream(session)
        await write(session)
        assert await read(session) == 1
        rest = await result.all()
        assert len(rest) == MANY - 1
        assert {row.total for row in rest} == {0}
        await session.commit()
        assert checked_out(reader) == 0


async def test_a_stream_goes_on_after_commit_and_rollback(
    maker: Maker, reader: AsyncEngine
) -> None:
    """As on stock: rows are streamed, and written back in transactions of the same session."""
    async with maker() as session:
        result = await stream(session)
        for end in (session.commit, session.rollback, session.commit):
            await write(session)
            assert await result.fetchone() is not None
            await end()
            assert await result.fetchone() is not None
            assert checked_out(reader) == 1
        rest = await result.all()
        assert len(rest) == MANY - 7
        assert {row.total for row in rest} == {0}
        assert await read(session) == 2
        await session.commit()
        assert checked_out(reader) == 0


async def test_a_stream_keeps_the_log_only_to_its_own_end(maker: Maker, db_log: Any) -> None:
    """Once it is read, its snapshot is gone, although its connection is still the session's."""
    async with maker() as session:
        result = await stream(session)
        await session.commit()
        await result.all()
        assert db_log() == 0


@pytest.fixture
def db_log(reader: AsyncEngine) -> Callable[[], int]:
    """How many connections of the reader engine have a snapshot."""

    def pinning() -> int:
        assert isinstance(reader.pool, ReaderPool)
        connections = [loan.connection for loan in reader.pool.loans]
        return sum(c is not None and c.in_transaction for c in connections)

    return pinning


@pytest.mark.parametrize("end", ["close", "reset", "invalidate"])
async def test_closing_the_session_closes_its_streams(
    maker: Maker, writer: AsyncEngine, reader: AsyncEngine, end: str
) -> None:
    """Those of earlier transactions, too: nothing stays checked out."""
    async with maker() as session:
        await stream(session)
        await session.commit()
        await stream(session)
        await write(session)
        assert checked_out(reader) == 2
        await getattr(session, end)()
        await until_free_of(writer, reader)


async def test_a_synchronous_stream_too(maker: Maker) -> None:
    """``yield_per`` in ``run_sync()``."""

    def work(session: Session) -> int:
        total = 0
        for item in session.scalars(select(Item).execution_options(yield_per=1)):
            session.execute(update(Item).where(Item.id == item.id).values(amount=item.id))
            total += item.id
            session.commit()
        return total

    async with maker() as session:
        assert await session.run_sync(work) == 6
        assert await read(session) == 6


# -- without WAL ---------------------------------------------------------------------------------


@pytest.fixture
async def journal(make_engine: MakeEngine) -> Maker:
    """Auto sessions over a rollback journal."""
    options: dict[str, Any] = {"pragmas": {"journal_mode": "TRUNCATE"}}
    writer = make_engine(WriterPool, **options)
    await create_items(writer)
    return routing_sessionmaker(writer=writer, reader=make_engine(ReaderPool, **options))


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("pending", [False, True])
async def test_without_wal_a_stream_in_the_way_of_its_commit_is_named_at_once(
    journal: Maker, earlier: bool, pending: bool
) -> None:
    """It would wait for itself. When the stream is closed, the same COMMIT goes on."""
    async with journal() as session:
        result = await stream(session)
        if earlier:
            await session.commit()
        session.add(Item(id=9, amount=1))
        if not pending:
            await session.flush()
        for _ in range(2):
            with pytest.raises(OpenReadError, match=r"would wait for itself.*a stream.*close it"):
                await session.commit()
        assert await result.fetchone() is not None
        await result.close()
        await session.commit()
        assert await read(session) == 1


async def test_without_wal_a_block_with_a_stream_in_the_way_is_rolled_back(
    journal: Maker, reader: AsyncEngine
) -> None:
    """As after any error of a COMMIT."""
    async with journal() as session:
        with pytest.raises(OpenReadError):
            async with session.begin():
                await stream(session)
                await write(session)
        assert await read(session) == 0


async def test_without_wal_a_stream_does_not_wait_for_a_turn(journal: Maker) -> None:
    """Its holder would wait for the stream, and the stream's session for the holder: both named."""

    async def other() -> None:
        async with journal(role="writer") as session:
            await write(session)
            held.set()
            await done.wait()
            await session.commit()

    held, done = asyncio.Event(), asyncio.Event()
    holder = asyncio.create_task(other(), name="import-42")
    await held.wait()
    async with journal() as session:
        result = await stream(session)
        with pytest.raises(OpenReadError, match=r"held by task 'import-42'.*wait for a stream"):
            await write(session)
        await result.close()
        done.set()
        await write(session)
        await session.commit()
        assert await read(session) == 2
    await holder


async def test_without_wal_a_commit_that_writes_nothing_is_in_nobodys_way(journal: Maker) -> None:
    """A stream may be read on after it."""
    async with journal() as session:
        result = await stream(session)
        await session.commit()
        assert len(await result.all()) == MANY - 1


async def test_without_wal_what_has_ended_is_in_nobodys_way(journal: Maker) -> None:
    """A stream that was read to its end, and reads of any other kind."""
    async with journal() as session:
        await (await stream(session)).all()
        await read(session)
        await write(session)
        await session.commit()
        assert await read(session) == 1


# -- stale reads ---------------------------------------------------------------------------------


@pytest.fixture
def strict(maker: Maker, writer: AsyncEngine, reader: AsyncEngine) -> Maker:
    return routing_sessionmaker(writer=writer, reader=reader, refuse_stale_writes=True)


@pytest.mark.parametrize("nested", [False, True])
async def test_a_stale_write_stays_refused(
    strict: Maker, maker: Maker, reader: AsyncEngine, nested: bool
) -> None:
    """Until the transaction ends: trying again does not make fresh what was read."""
    async with strict() as session:
        await read(session)
        await committed(maker)
        for _ in range(2):
            with pytest.raises(StaleReadError):
                if nested:
                    async with session.begin_nested():
                        await write(session)
                else:
                    await write(session)
        await session.rollback()
        await read(session)
        await write(session)
        assert checked_out(reader) == 0
        await session.commit()
        assert await read(session) == 2


async def test_a_stale_write_is_noticed_after_a_time_out_too(
    make_engine: MakeEngine, writer: AsyncEngine, reader: AsyncEngine
) -> None:
    """The comparison is still to be made when the writer comes at the second try."""
    await create_items(writer)
    impatient = make_engine(WriterPool, write_timeout=0.05)
    strict = routing_sessionmaker(writer=impatient, reader=reader, refuse_stale_writes=True)
    held, tried, free = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def try_twice() -> None:
        async with strict() as session:
            await read(session)
            await held.wait()
            with pytest.raises(WriteTimeout):
                await write(session)
            tried.set()
            await free.wait()
            with pytest.raises(StaleReadError):
                await write(session)

    task = asyncio.create_task(try_twice())
    async with writer.begin() as holder:
        await holder.execute(UPDATE_FIRST)
        await until(lambda: checked_out(reader) == 1)
        held.set()
        await tried.wait()
    free.set()
    await task


async def test_a_stale_write_beside_a_stream_cannot_be_told(strict: Maker) -> None:
    """And is refused by name, before anything is written."""
    async with strict() as session:
        result = await stream(session)
        with pytest.raises(OpenReadError, match="refuse_stale_writes cannot tell"):
            await write(session)
        await result.close()
        await write(session)
        await session.commit()
