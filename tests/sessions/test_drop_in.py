"""SQLAlchemy's asyncio names, imported from this package."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from greenlet import getcurrent
from sqlalchemy import NullPool, event, func, make_url, select, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext import asyncio as theirs
from sqlalchemy.pool import AsyncAdaptedQueuePool, StaticPool
from sqlalchemy.util import await_only

import sa_sqlite_pool
from sa_sqlite_pool import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    ReaderPool,
    SQLitePool,
    async_engine_from_config,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sa_sqlite_pool.compat.greenlets import Spawned
from tests.conftest import Tasks
from tests.helpers import UPDATE_FIRST, Item, amounts, create_items, turn_of
from tests.sessions import other_database

NAMES = [
    "AsyncConnection",
    "AsyncEngine",
    "AsyncSession",
    "async_engine_from_config",
    "async_scoped_session",
    "async_sessionmaker",
    "create_async_engine",
]
CLASSES = [name for name in NAMES if inspect.isclass(getattr(theirs, name))]
HERE = "sqlite+aiosqlite"
ELSEWHERE = f"sqlite+{other_database.Dialect.driver}"


@pytest.fixture(params=[HERE, ELSEWHERE])
async def engine(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[AsyncEngine]:
    """Yield an engine on SQLite with this package's pool, or on another database, with three items.

    Everything it does must run in reused greenlets in SQLAlchemy.
    """
    engine = create_async_engine(f"{request.param}:///{path}")
    assert isinstance(engine.pool, SQLitePool) == (request.param == HERE)
    ran_in: set[type] = set()
    for name in ("begin", "commit", "rollback", "before_cursor_execute", "savepoint"):
        event.listen(engine.sync_engine, name, lambda *_: ran_in.add(type(getcurrent())))
    await create_items(engine)
    yield engine
    await engine.dispose()
    assert ran_in == {Spawned}


# -- the names -------------------------------------------------------------------------------------


def shape(function: Any) -> list[tuple[Any, ...]]:
    """Return its parameters, except for defaults that replace SQLAlchemy's classes by ours."""
    parameters = inspect.signature(function).parameters.values()
    return [
        (one.name, one.kind, getattr(one.default, "__mro__", [one.default])[-2:])
        for one in parameters
    ]


@pytest.mark.parametrize("name", NAMES)
def test_signatures(name: str) -> None:
    """Each accepts SQLAlchemy's parameters, with the same names and defaults."""
    assert name in sa_sqlite_pool.__all__
    assert shape(getattr(sa_sqlite_pool, name)) == shape(getattr(theirs, name))


@pytest.mark.parametrize("name", CLASSES)
def test_methods(name: str) -> None:
    """Classes are subclasses of SQLAlchemy's, and their methods accept the same parameters."""
    ours, own = getattr(sa_sqlite_pool, name), getattr(theirs, name)
    assert issubclass(ours, own)
    for attribute, member in vars(own).items():
        if callable(member) and (not attribute.startswith("_") or attribute == "__init__"):
            assert shape(getattr(ours, attribute)) == shape(getattr(own, attribute)), attribute


async def test_what_is_made_is_of_these_classes(engine: AsyncEngine) -> None:
    """They are also instances of SQLAlchemy's classes: ``isinstance`` holds either way."""
    assert type(engine) is AsyncEngine
    assert type(engine.execution_options(yield_per=1)) is AsyncEngine
    assert isinstance(engine, theirs.AsyncEngine)
    async with engine.begin() as connection:
        assert type(connection) is AsyncConnection
        assert connection.engine is engine
    async with async_sessionmaker(engine)() as session:
        assert type(session) is AsyncSession
        connection = await session.connection()
        assert type(connection) is AsyncConnection
        assert connection.engine is engine
        assert await session.connection() is connection
        assert session.bind is engine
        assert (await session.get_one(Item, 1)).amount == 0


# -- pools -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", [f"{HERE}:///app.db", make_url(f"{HERE}:///app.db"), f"{HERE}://"])
def test_the_default_pool(url: Any) -> None:
    assert type(create_async_engine(url).pool) is SQLitePool


@pytest.mark.parametrize("query", ["", "?plugin=sa_sqlite_pool"])
def test_a_given_pool_wins(query: str) -> None:
    """The given class or instance takes precedence, even over a plugin in the URL."""
    url = f"{HERE}:///app.db{query}"
    for pool in (NullPool, StaticPool, AsyncAdaptedQueuePool, ReaderPool):
        assert type(create_async_engine(url, poolclass=pool).pool) is pool
    instance = theirs.create_async_engine(url, poolclass=NullPool).pool
    assert create_async_engine(url, pool=instance).pool is instance
    assert type(create_async_engine(url, poolclass=None, pool=None).pool) is SQLitePool
    assert type(create_async_engine(url).pool) is SQLitePool


def test_another_database_has_its_own_pool() -> None:
    assert type(create_async_engine(f"{ELSEWHERE}:///app.db").pool) is AsyncAdaptedQueuePool
    engine = create_async_engine(f"{ELSEWHERE}:///app.db", poolclass=NullPool)
    assert type(engine.pool) is NullPool


def test_a_driver_that_is_not_asynchronous() -> None:
    """It is refused, as by SQLAlchemy."""
    messages = []
    for create in (create_async_engine, theirs.create_async_engine):
        with pytest.raises(InvalidRequestError) as raised:
            create("sqlite:///app.db")
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


def test_from_a_configuration(path: Path) -> None:
    """The pool is chosen in the same way, and strings are converted to numbers."""
    config: dict[str, Any] = {"sqlalchemy.url": f"{HERE}:///{path}", "sqlalchemy.pool_size": "3"}
    engine = async_engine_from_config({**config, "poolclass": NullPool, "url": ELSEWHERE})
    assert type(engine) is AsyncEngine
    assert isinstance(engine.pool, SQLitePool)
    assert engine.pool.size() == 3
    config = {"db.url": f"{HERE}:///{path}"}
    for engine in (
        async_engine_from_config({**config, "db.poolclass": NullPool}, "db."),
        async_engine_from_config(config, "db.", poolclass=NullPool),
    ):
        assert type(engine.pool) is NullPool
    url = f"{ELSEWHERE}:///{path}"
    engine = async_engine_from_config({"db.url": url}, prefix="db.")
    assert type(engine.pool) is AsyncAdaptedQueuePool
    for from_config in (async_engine_from_config, theirs.async_engine_from_config):
        with pytest.raises(KeyError, match="url"):
            from_config({})


async def test_in_memory() -> None:
    """All connections share one database."""
    engine = create_async_engine(f"{HERE}:///:memory:")
    await create_items(engine)
    assert await asyncio.gather(*(amounts(engine) for _ in range(3))) == [[0, 0, 0]] * 3
    await engine.dispose()


async def test_a_creator_of_the_application(path: Path) -> None:
    """``async_creator`` opens the connections of SQLitePool; with ``creator`` it is refused."""
    aiosqlite = pytest.importorskip("aiosqlite")
    opened: list[Path] = []

    async def create() -> Any:
        opened.append(path)
        return await aiosqlite.connect(path)

    engine = create_async_engine(f"{HERE}://", async_creator=create)
    await create_items(engine)
    assert turn_of(path).holder is None
    assert opened
    await engine.dispose()
    for creating in (create_async_engine, theirs.create_async_engine):
        with pytest.raises(sa_sqlite_pool.ConfigurationError.__mro__[1], match="Can only specify"):
            creating(f"{HERE}://", async_creator=create, creator=create)


PROGRAM = """
import asyncio
from sqlalchemy import text
from sa_sqlite_pool import create_async_engine, async_sessionmaker

engine = create_async_engine("sqlite+aiosqlite:///imported.db")  # where there is no loop
Session = async_sessionmaker(engine)

async def main():
    async with Session.begin() as session:
        print(await session.scalar(text("SELECT 1")))
    await engine.dispose()

asyncio.run(main())
asyncio.run(main())
"""


def test_made_where_there_is_no_loop(tmp_path: Path) -> None:
    """Modules do so on import, and the engine is then used in one loop after the other."""
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("1\n1\n", "")


# -- what programs do with them --------------------------------------------------------------------


async def test_blocks_of_an_engine(engine: AsyncEngine) -> None:
    """Blocks may commit, roll back, nest, be begun manually, and return their transactions."""
    async with engine.begin() as connection:
        await connection.execute(UPDATE_FIRST)
        async with connection.begin_nested() as savepoint:
            await connection.execute(UPDATE_FIRST)
            assert connection.get_nested_transaction() is savepoint
            await savepoint.rollback()
    with pytest.raises(ZeroDivisionError):
        async with engine.begin() as connection:
            await connection.execute(UPDATE_FIRST)
            raise ZeroDivisionError
    async with engine.connect() as connection, connection.begin() as transaction:
        await connection.execute(UPDATE_FIRST)
        assert connection.get_transaction() is transaction
    connection = await engine.connect()
    await connection.execute(UPDATE_FIRST)
    await connection.close()
    assert await amounts(engine) == [2, 0, 0]


async def test_blocks_of_sessions(engine: AsyncEngine) -> None:
    """``begin()`` of sessions and their maker works; an error rolls back and closes the session."""
    maker = async_sessionmaker(engine, expire_on_commit=False)
    async with maker.begin() as session:
        session.add(Item(id=4))
        async with session.begin_nested() as savepoint:
            session.add(Item(id=5))
            assert session.get_nested_transaction() is savepoint
    async with maker() as session, session.begin() as transaction:
        session.add(Item(id=6))
        assert session.get_transaction() is transaction
    with pytest.raises(ZeroDivisionError):
        async with maker.begin() as session:
            session.add(Item(id=7))
            await session.flush()
            raise ZeroDivisionError
    assert not session.in_transaction()
    async with maker.begin() as session:
        session.add(Item(id=8))
        await session.flush()
        await session.rollback()
    async with AsyncSession(engine) as session:
        assert await session.scalar(select(func.count(Item.id))) == 6


async def test_a_commit_that_fails(engine: AsyncEngine) -> None:
    """The error is raised, and the session has released its connection."""
    maker = async_sessionmaker(engine)

    def refuse(_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with maker.begin() as session:
            event.listen(session.sync_session, "before_commit", refuse)
            item = await session.get(Item, 1)
            session.add(Item(id=4))
    assert item not in session
    assert not session.in_transaction()
    assert await amounts(engine) == [0, 0, 0]


async def test_a_commit_is_brought_to_its_end(engine: AsyncEngine) -> None:
    """As with SQLAlchemy, a cancellation meanwhile is raised once it is done and closed."""
    committing, gate = asyncio.Event(), asyncio.Event()
    held: list[Any] = []

    @event.listens_for(engine.sync_engine, "commit")
    def wait(_: Any) -> None:
        committing.set()
        await_only(gate.wait())

    async def work() -> None:
        async with async_sessionmaker(engine).begin() as session:
            held.extend([session, await session.get(Item, 1)])
            await session.execute(UPDATE_FIRST)

    task = asyncio.create_task(work())
    await committing.wait()
    task.cancel()
    await asyncio.sleep(0)
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert held[1] not in held[0]
    assert await amounts(engine) == [1, 0, 0]


async def test_blocks_need_no_task(path: Path, tasks: Tasks) -> None:
    """This applies if nothing has to be awaited at the end."""
    engine = create_async_engine(f"{HERE}:///{path}", placement="inline")
    maker = async_sessionmaker(engine)
    await create_items(engine)
    tasks.clear()
    async with engine.begin() as connection:
        await connection.execute(UPDATE_FIRST)
    async with engine.connect() as connection:
        await connection.execute(UPDATE_FIRST)
    async with maker() as session:
        await session.execute(UPDATE_FIRST)
    async with maker.begin() as session:
        await session.execute(UPDATE_FIRST)
    assert tasks == []
    assert (await amounts(engine))[0] == 2
    await engine.dispose()


async def test_streams(engine: AsyncEngine) -> None:
    """Connections and sessions return rows, scalars, mappings and chunks, even if cut off."""
    statement = select(Item.id).order_by(Item.id)
    async with engine.connect() as connection:
        async with connection.stream(statement) as result:
            assert [row.id async for row in result] == [1, 2, 3]
        async with connection.stream_scalars(statement) as scalars:
            assert [chunk async for chunk in scalars.partitions(2)] == [[1, 2], [3]]
        async with connection.stream(statement) as result:
            assert (await result.fetchone()) == (1,)
        result = await connection.stream(statement)
        assert [row["id"] async for row in result.mappings()] == [1, 2, 3]
    async with AsyncSession(engine) as session:
        items = (await session.stream(select(Item).order_by(Item.id))).scalars().unique()
        assert [item.id async for item in items] == [1, 2, 3]
        assert await (await session.stream_scalars(statement)).all() == [1, 2, 3]


async def test_synchronous_functions(engine: AsyncEngine) -> None:
    """``run_sync()``, the raw connection, and listeners that execute all work."""
    heard: list[Any] = []

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Any) -> None:
        heard.append(connection.exec_driver_sql("SELECT 7").scalar())

    async with engine.connect() as connection:
        assert await connection.run_sync(lambda sync: sync.scalar(text("SELECT 1"))) == 1
        raw = await connection.get_raw_connection()
        assert raw.dbapi_connection is not None
    async with AsyncSession(engine) as session:
        assert (await session.run_sync(lambda sync: sync.get_one(Item, 1))).id == 1
    assert set(heard) == {7}


async def test_scoped_sessions(engine: AsyncEngine) -> None:
    """There is one per task."""
    scoped = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)

    async def work(number: int) -> AsyncSession:
        scoped.add(Item(id=number))
        await scoped.commit()
        session = scoped()
        await scoped.remove()
        return session

    sessions = [await asyncio.create_task(work(number)) for number in (4, 5)]
    assert sessions[0] is not sessions[1]
    assert {type(session) for session in sessions} == {AsyncSession}
    assert len(await amounts(engine)) == 5


async def test_equal_to_sqlalchemy_s(engine: AsyncEngine) -> None:
    """Two of SQLAlchemy's objects for the same engine are equal, too; messages have their names."""
    theirs_ = theirs.AsyncEngine(engine.sync_engine)
    other = create_async_engine(f"{HERE}://")
    assert engine == theirs_
    assert theirs_ == engine
    assert engine != other
    assert {engine: 1}[engine] == 1
    with pytest.raises(InvalidRequestError, match="AsyncConnection context has not been started"):
        engine.connect().begin()
    assert [AsyncEngine.__name__, AsyncSession.__name__] == ["AsyncEngine", "AsyncSession"]
