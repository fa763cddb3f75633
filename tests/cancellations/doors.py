"""The ways to the database, all on the same file, and whether they are at rest."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.pool import QueuePool

import sa_sqlite_pool
from sa_sqlite_pool import (
    ReaderPool,
    SQLiteDatabase,
    SQLitePool,
    WalSettings,
    WriterPool,
    routing_sessionmaker,
)
from sa_sqlite_pool.pools.base import FairPool
from sa_sqlite_pool.settings import OnConnect
from sa_sqlite_pool.turn.write_turn import WriteTurn
from tests.turn.locks import is_free

READERS = 3

# So small that the log is checkpointed and truncated, also in gaps, while tasks are cancelled.
SMALL_LOG = WalSettings(soft_limit=64 * 1024, hard_limit=256 * 1024, reader_gap=0.02)

Executor = AsyncConnection | AsyncSession
Place = Callable[[], AbstractAsyncContextManager[Executor]]
"""A place to execute statements: it is entered for one transaction, which ends with the block."""

MakeSession = Callable[[], AsyncSession]
MakeEngine = Callable[[], AsyncEngine]


@dataclass(frozen=True)
class Door:
    """One way to the database.

    ``capacities`` maps its engines to the maximum of connections that each opens. ``exclusive`` are
    the ``transactions`` in which a value read stays true until it is written; ``snapshots`` are the
    ``reads`` that see one state. ``engines`` are for writes with explicit connections, ``sessions``
    for explicit commits. The connections of a door that is not ``warm`` are opened at each use, and
    not counted.
    """

    name: str
    close: Callable[[], Awaitable[None]]
    capacities: Mapping[AsyncEngine, int]
    transactions: Mapping[str, Place]
    exclusive: Mapping[str, Place]
    reads: Mapping[str, Place]
    snapshots: Mapping[str, Place]
    engines: Mapping[str, AsyncEngine]
    sessions: Mapping[str, MakeSession]
    new_engines: Mapping[str, MakeEngine] = field(default_factory=dict)
    checkpoint: Callable[[str], Coroutine[Any, Any, object]] | None = None
    database: SQLiteDatabase | None = None
    warm: bool = True

    async def warm_up(self) -> None:
        """Open as many connections as possible."""
        for engine, capacity in self.capacities.items():
            async with AsyncExitStack() as stack:
                for _ in range(capacity):
                    await stack.enter_async_context(engine.connect())

    def left_out(self) -> Iterator[str]:
        """Yield the tasks that hold a connection, or wait for one."""
        for engine in self.capacities:
            pool = engine.pool
            assert isinstance(pool, QueuePool)
            if pool.checkedout():
                yield f"{self.name}: {pool.checkedout()} out of {pool!r}: {_holders(pool)}"
            if isinstance(pool, FairPool) and pool.waiting:
                yield f"{self.name}: {pool.waiting} wait for {pool!r}"
            if isinstance(pool, FairPool) and pool.keeper is not None:
                yield from (f"snapshot of {s.permit!r}" for s in pool.keeper.snapshots)


def _holders(pool: QueuePool) -> str:
    return pool._line.describe_holders() if isinstance(pool, FairPool) else "nobody knows"


def _turn_left(turn: WriteTurn) -> Iterator[str]:
    """Yield the tasks that hold the write turn, or wait for it."""
    if turn.holder is not None:
        yield f"the turn is held for {turn.line.describe_holders()}"
    if turn.waiting:
        yield f"{turn.waiting} wait for the turn"


def left_out(path: Path, turn: WriteTurn, doors: Iterable[Door]) -> Iterator[str]:
    """Yield what is not at rest: the turn, within and between processes, and the doors."""
    yield from _turn_left(turn)
    if not is_free(path):
        yield "the turn between processes"
    for door in doors:
        yield from door.left_out()


def held_here(doors: Iterable[Door]) -> Iterator[str]:
    """Yield what the running loop still holds: readers of functions are returned after the calls.

    If its loop is closed before, the next checkout recalls it: it is not at rest.
    """
    here = asyncio.get_running_loop()
    for pool in [engine.pool for door in doors for engine in door.capacities]:
        if isinstance(pool, FairPool):
            held = list(pool._line._held)
            yield from (f"a connection of {pool!r}" for permit in held if permit.loop is here)


@asynccontextmanager
async def _transaction(make: MakeSession) -> AsyncIterator[AsyncSession]:
    async with make() as session, session.begin():
        yield session


def _sessions(maker: async_sessionmaker[AsyncSession]) -> dict[str, MakeSession]:
    return {"auto": maker, "role writer": partial(maker, role="writer")}


def _url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


async def swap_in(path: Path, on_connect: OnConnect) -> Door:
    """Return door 1: one engine for everything."""
    engine = create_async_engine(
        _url(path),
        poolclass=SQLitePool,
        pool_size=3,
        max_overflow=2,
        on_connect=on_connect,
        wal=SMALL_LOG,
    )
    as_writer = engine.execution_options(sqlite_role="writer")
    as_reader = engine.execution_options(sqlite_role="reader")
    exclusive: dict[str, Place] = {"as writer": as_writer.begin}
    snapshots: dict[str, Place] = {"as reader": as_reader.connect}
    return Door(
        name="swap-in",
        close=engine.dispose,
        capacities={engine: 5},
        transactions={"engine": engine.begin, **exclusive},
        exclusive=exclusive,
        reads={"engine": engine.connect, **snapshots},
        snapshots=snapshots,
        engines={"engine": engine, "as writer": as_writer},
        sessions={"session": async_sessionmaker(engine, expire_on_commit=False)},
    )


async def engines(path: Path, on_connect: OnConnect) -> Door:
    """Return door 2: two engines and routed sessions."""
    writer = create_async_engine(
        _url(path), poolclass=WriterPool, on_connect=on_connect, wal=SMALL_LOG
    )
    reader = create_async_engine(
        _url(path), poolclass=ReaderPool, pool_size=READERS, on_connect=on_connect
    )
    maker = routing_sessionmaker(writer=writer, reader=reader)

    async def close() -> None:
        await reader.dispose()
        await writer.dispose()

    engine_alone: dict[str, Place] = {"writer": writer.begin}
    reader_alone: dict[str, Place] = {"reader": reader.connect}
    routed = _routed(maker)
    return Door(
        name="engines",
        close=close,
        capacities={writer: 1, reader: READERS},
        transactions=routed.transactions | engine_alone,
        exclusive=routed.exclusive | engine_alone,
        reads=routed.reads | reader_alone,
        snapshots=routed.snapshots | reader_alone,
        engines={"writer": writer},
        sessions=_sessions(maker),
    )


async def facade(path: Path, on_connect: OnConnect) -> Door:
    """Return door 3: the facade."""
    db = SQLiteDatabase(path, readers=READERS, on_connect=on_connect, wal=SMALL_LOG)
    await db.open()
    routed = _routed(db.sessionmaker)
    return Door(
        name="facade",
        close=db.close,
        capacities={db.writer_engine: 1, db.reader_engine: READERS},
        transactions=routed.transactions | {"write()": db.write},
        exclusive=routed.exclusive | {"write()": db.write},
        reads=routed.reads | {"read()": db.read},
        snapshots=routed.snapshots | {"read()": db.read},
        engines={"writer": db.writer_engine},
        sessions=_sessions(db.sessionmaker),
        checkpoint=db.checkpoint,
        database=db,
    )


@dataclass(frozen=True)
class _Routed:
    transactions: dict[str, Place]
    exclusive: dict[str, Place]
    reads: dict[str, Place]
    snapshots: dict[str, Place]


def _routed(maker: async_sessionmaker[AsyncSession]) -> _Routed:
    """Return the places of a routed session maker."""
    exclusive: dict[str, Place] = {
        "role writer": partial(_transaction, partial(maker, role="writer"))
    }
    snapshots: dict[str, Place] = {"role reader": partial(maker, role="reader")}
    automatic: dict[str, Place] = {
        "auto": partial(_transaction, maker),
        # Its commit and close run in a separate task, which SQLAlchemy shields.
        "maker.begin()": maker.begin,
    }
    return _Routed(
        transactions=automatic | exclusive,
        exclusive=exclusive,
        reads={"auto": maker, **snapshots},
        snapshots=snapshots,
    )


async def names(path: Path, on_connect: OnConnect) -> Door:
    """Return a door through this package's drop-in names for SQLAlchemy's."""
    engine = sa_sqlite_pool.create_async_engine(
        _url(path), pool_size=2, max_overflow=1, on_connect=on_connect, wal=SMALL_LOG
    )
    maker = sa_sqlite_pool.async_sessionmaker(engine, expire_on_commit=False)
    as_writer = engine.execution_options(sqlite_role="writer")
    as_reader = engine.execution_options(sqlite_role="reader")
    exclusive: dict[str, Place] = {"as writer": as_writer.begin}
    snapshots: dict[str, Place] = {"as reader": as_reader.connect}
    return Door(
        name="names",
        close=engine.dispose,
        capacities={engine: 3},
        transactions={
            "engine": engine.begin,
            "maker.begin()": maker.begin,
            "session": partial(_transaction, maker),
            **exclusive,
        },
        exclusive=exclusive,
        reads={"engine": engine.connect, "session": maker, **snapshots},
        snapshots=snapshots,
        engines={"engine": engine, "as writer": as_writer},
        sessions={"session": maker},
    )


async def cold(path: Path, _: OnConnect) -> Door:
    """Return engines that replace connections at each checkout, are disposed of, or are new."""
    make = partial(create_async_engine, _url(path))
    swapped_in = make(poolclass=SQLitePool, pool_size=2, max_overflow=0, pool_recycle=0)
    writer = make(poolclass=WriterPool, pool_recycle=0)
    reader = make(poolclass=ReaderPool, pool_size=2, pool_recycle=0)
    disposed = make(poolclass=SQLitePool, pool_size=2, max_overflow=1)
    disposed_writer = make(poolclass=WriterPool)

    async def close() -> None:
        for engine in (reader, swapped_in, writer, disposed, disposed_writer):
            await engine.dispose()

    return Door(
        name="cold",
        close=close,
        capacities={swapped_in: 2, writer: 1, reader: 2, disposed: 3, disposed_writer: 1},
        transactions={
            "engine": swapped_in.begin,
            "writer": writer.begin,
            "disposed": disposed.begin,
            "disposed writer": disposed_writer.begin,
        },
        exclusive={},
        reads={
            "engine": swapped_in.connect,
            "reader": reader.connect,
            "disposed": disposed.connect,
        },
        snapshots={},
        engines={"disposed": disposed, "disposed writer": disposed_writer},
        sessions={},
        new_engines={
            "swap-in": partial(make, poolclass=SQLitePool),
            "writer": partial(make, poolclass=WriterPool),
        },
        warm=False,
    )


async def stock(path: Path, on_connect: OnConnect) -> Door:
    """Return SQLAlchemy's own engine, for comparison."""
    engine = create_async_engine(_url(path), connect_args={"timeout": 30})

    def set_up(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        on_connect(connection.driver_connection)

    event.listen(engine.sync_engine, "connect", set_up)
    return Door(
        name="stock",
        close=engine.dispose,
        capacities={engine: 15},
        transactions={"engine": engine.begin},
        exclusive={},
        reads={"engine": engine.connect},
        snapshots={},
        engines={"engine": engine},
        sessions={},
    )


OpenDoor = Callable[[Path, OnConnect], Awaitable[Door]]

DOORS: Mapping[str, OpenDoor] = {
    "swap-in": swap_in,
    "engines": engines,
    "facade": facade,
    "names": names,
    "cold": cold,
    "stock": stock,
}
