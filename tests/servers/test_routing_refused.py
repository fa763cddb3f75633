"""A statement that a replica refuses is sent to the writer once, or the error names the way out."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Mapped, column_property, mapped_column

from sa_sqlite_pool import ConfigurationError, ForbiddenWriteError, routing_sessionmaker
from sa_sqlite_pool.postgresql.sqlstate import sqlstate_of
from sa_sqlite_pool.sessions.routing import RoutedAsyncSession

from .models import Account, Base
from .routed import Routed

# A function of the application, which is in no list.
SCHEMA = """
CREATE TABLE log (id serial, what text);
CREATE FUNCTION deposit(amount int) RETURNS int LANGUAGE sql AS $$
    INSERT INTO log (what) VALUES ('deposit');
    UPDATE accounts SET balance = balance + amount RETURNING balance;
$$;
"""
DEPOSIT = select(func.deposit(1))


class Depositing(Base):
    """An account that cannot be read without a deposit."""

    __tablename__ = "depositing"

    id: Mapped[int] = mapped_column(primary_key=True)
    deposited = column_property(func.deposit(1))


async def prepare(routed: Routed) -> None:
    routed.app.sql(SCHEMA)
    await routed.caught_up()
    routed.went.clear()


async def _execute(session: AsyncSession) -> Any:
    return (await session.execute(DEPOSIT)).scalar_one()


async def _scalar(session: AsyncSession) -> Any:
    return await session.scalar(DEPOSIT)


async def _scalars(session: AsyncSession) -> Any:
    return (await session.scalars(DEPOSIT)).one()


async def _stream(session: AsyncSession) -> Any:
    return (await (await session.stream(DEPOSIT)).one())[0]


async def _stream_text(session: AsyncSession) -> Any:
    return (await (await session.stream_scalars(text("SELECT deposit(1)"))).all())[0]


async def _query(session: AsyncSession) -> Any:
    return await session.run_sync(lambda sync: sync.query(func.deposit(1)).scalar())


async def _yield_per(session: AsyncSession) -> Any:
    return await session.run_sync(lambda sync: next(iter(sync.query(func.deposit(1)).yield_per(5))))


DOORS = (_execute, _scalar, _scalars, _stream, _stream_text, _query, _yield_per)


async def test_the_first_statement_is_sent_to_the_writer(routed: Routed) -> None:
    """It is sent once, and the session stays there: through each door, it writes exactly once."""
    await prepare(routed)
    for door in DOORS:
        routed.went.clear()
        async with routed.maker() as session:
            found = await door(session)
            assert found in {11, (11,)}, door
            assert await session.scalar(select(Account.balance)) == 11
            await session.rollback()
        assert routed.went == ["reader", "writer", "writer"], door
    async with routed.maker() as session:
        await _execute(session)
        await session.commit()
    assert await routed.balance() == 11
    assert routed.app.sql("SELECT count(*) FROM log") == "1"


async def test_a_loader_is_sent_to_the_writer(routed: Routed) -> None:
    """Expired attributes are loaded again if that is possible."""
    await prepare(routed)
    routed.app.sql("INSERT INTO depositing VALUES (1)")
    await routed.caught_up()
    async with routed.maker() as session:
        one = await session.get_one(Depositing, 1)
        assert one.deposited == 11
        await session.commit()
        await session.refresh(one)
        await session.commit()
    assert await routed.balance() == 12


async def test_a_savepoint_is_the_writers(routed: Routed) -> None:
    """In a savepoint, it is sent there, too, and rolled back with the savepoint."""
    await prepare(routed)
    async with routed.maker() as session:
        nested = await session.begin_nested()
        await session.execute(DEPOSIT)
        await nested.rollback()
        await session.commit()
    assert await routed.balance() == 10


async def test_after_a_read_it_is_an_error(routed: Routed) -> None:
    """The earlier read has another snapshot, so an error is raised, which names the way out."""
    await prepare(routed)
    async with routed.maker() as session:
        await session.scalar(select(Account.balance))
        with pytest.raises(OperationalError, match='use role="writer" from the start') as caught:
            await session.execute(DEPOSIT)
        said = str(caught.value.orig)
        assert isinstance(caught.value.orig, ForbiddenWriteError)
        assert said.count("a reader") == said.count("cannot change a database") == 1
        assert "use a writer session" not in said
        assert "\n" not in said
        assert sqlstate_of(caught.value) == "25006"
        assert routed.went == ["reader", "reader"]
        await session.rollback()
        await session.execute(DEPOSIT)
        await session.commit()
    assert await routed.balance() == 11


async def test_what_goes_elsewhere_is_not_sent_to_the_writer(routed: Routed) -> None:
    """If the caller or ``binds=`` has chosen the engine, its refusal is an error."""
    routed.app.sql("INSERT INTO depositing VALUES (1)")
    await prepare(routed)
    to_reader = {"bind": routed.reader.sync_engine}
    other = create_async_engine(routed.app.url(routed.replica))
    try:
        async with routed.maker(binds={Depositing: other}) as session:
            with pytest.raises(OperationalError, match="use a writer session"):
                await session.execute(DEPOSIT, bind_arguments=to_reader)
            await session.rollback()
            await session.scalar(select(Account.balance))
            with pytest.raises(Exception, match="read-only transaction") as caught:
                await session.execute(select(Depositing))
            assert "a reader" not in str(caught.value)
    finally:
        await other.dispose()
    assert set(routed.went) == {"reader"}


async def test_a_reader_session_refuses_as_on_sqlite(routed: Routed) -> None:
    """``role="reader"`` never uses the writer: statements and flushes raise the same error."""
    await prepare(routed)
    async with routed.maker(role="reader") as session:
        for statement in (DEPOSIT, text("SELECT nextval('log_id_seq')"), text("DELETE FROM log")):
            with pytest.raises(OperationalError, match=r"a reader .*cannot change") as caught:
                await session.execute(statement)
            assert isinstance(caught.value.orig, ForbiddenWriteError)
            await session.rollback()
        session.add(Account(id=2))
        with pytest.raises(OperationalError, match="use a writer") as caught:
            await session.commit()
        assert isinstance(caught.value.orig, ForbiddenWriteError)
        await session.rollback()
        session.add(Account(id=2))
        with pytest.raises(OperationalError, match="autoflush"):
            await session.scalar(select(Account.balance))
    assert set(routed.went) == {"reader"}


async def test_other_errors_are_the_servers(routed: Routed) -> None:
    """An error with another cause is raised once, unchanged."""
    async with routed.maker() as session:
        with pytest.raises(Exception, match="nothing"):
            await session.execute(text("SELECT * FROM nothing"))
    assert routed.went == ["reader"]


async def test_what_the_writer_refuses_stays_its_error(routed: Routed) -> None:
    """If the writer refuses a write in a read-only transaction, the error names no reader."""
    await prepare(routed)
    async with routed.maker() as session:
        await session.execute(text("SET TRANSACTION READ ONLY"))
        with pytest.raises(Exception, match="read-only transaction") as caught:
            await session.execute(DEPOSIT)
        assert "a reader" not in str(caught.value)
    assert routed.went == ["writer", "writer"]


async def test_what_is_refused_at_construction(routed: Routed) -> None:
    """Options that do not work on a server are refused at once, by name, with the way out."""
    engines: Any = {"writer": routed.writer, "reader": routed.reader}
    for refused in (
        lambda: routing_sessionmaker(**engines, refuse_stale_writes=True),
        lambda: routed.maker(refuse_stale_writes=True),
        lambda: RoutedAsyncSession(**engines, refuse_stale_writes=True),
    ):
        with pytest.raises(ConfigurationError, match=r'role="writer".*postgresql'):
            refused()
    for refused in (
        lambda: routing_sessionmaker(**engines, twophase=True),
        lambda: routed.maker(twophase=True),
        lambda: RoutedAsyncSession(**engines, twophase=True),
    ):
        with pytest.raises(ConfigurationError, match="stock async_sessionmaker"):
            refused()
