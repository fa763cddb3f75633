"""The ways in which an application can access a database, all on one file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from sa_sqlite_pool import ReaderPool, SQLiteDatabase, SQLitePool, WriterPool, routing_sessionmaker

T = TypeVar("T")

STOCK, SWAP_IN, ENGINES, FACADE = "stock", "swap-in", "engines", "facade"
OURS = (SWAP_IN, ENGINES, FACADE)

# Seconds; a program that waits this long has failed.
PATIENCE = 5.0

# Less than that, and longer than a program without waits takes on a busy machine.
_AT_ONCE = 4.0

Executor = AsyncConnection | AsyncSession
Listen = Callable[[AsyncEngine], None]
Way = Callable[["Application"], AbstractAsyncContextManager[Executor]]
"""A way to execute statements; it may end with its block, or with commit() or rollback()."""


@dataclass
class Application:
    """The engines and sessions of one application; ``enter`` is the way that a test examines."""

    kind: str
    path: Path
    writer: AsyncEngine
    reader: AsyncEngine
    session: Callable[..., AsyncSession]
    enter_by: Way
    database: SQLiteDatabase | None = None

    @property
    def db(self) -> SQLiteDatabase:
        """The facade, in tests of that door only."""
        assert self.database is not None
        return self.database

    @property
    def engines(self) -> list[AsyncEngine]:
        """Its engines, without duplicates."""
        return [self.writer] if self.writer is self.reader else [self.writer, self.reader]

    def enter(self) -> AbstractAsyncContextManager[Executor]:
        """Enter the way that the test examines."""
        return self.enter_by(self)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Open a session that commits."""
        async with self.session() as session, session.begin():
            yield session

    async def write(self, *statements: str) -> None:
        """Execute on the writer engine, and commit."""
        async with self.writer.begin() as connection:
            for statement in statements:
                await connection.execute(text(statement))

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows that a new transaction of the reader engine finds."""
        async with self.reader.connect() as connection:
            return [tuple(row) for row in await connection.execute(text(sql))]

    async def value(self, sql: str) -> Any:
        """Return the only value of the only row."""
        ((value,),) = await self.rows(sql)
        return value

    async def close(self) -> None:
        """Close everything."""
        if self.database is not None:
            await self.database.close()
        else:
            for engine in reversed(self.engines):
                await engine.dispose()


@dataclass
class Door:
    """Opens applications of one kind, and closes them after the test."""

    kind: str
    path: Path
    enter_by: Way
    opened: list[Application] = field(default_factory=list)

    @property
    def stock(self) -> bool:
        """Whether this is the control: SQLAlchemy without this package."""
        return self.kind == STOCK

    async def open(
        self,
        *,
        listen: Listen | None = None,
        listen_to_writer: Listen | None = None,
        on_connect: Callable[[Any], None] | None = None,
        own: dict[str, Any] | None = None,
        session: dict[str, Any] | None = None,
        path: Path | None = None,
        **options: Any,
    ) -> Application:
        """Create the engines and connect.

        :param listen: called with each engine before it connects, to register listeners
        :param listen_to_writer: the same for the engine that writes
        :param on_connect: this package's option; on stock, a listener does the same
        :param own: additional options that only this package has
        :param session: options of the session maker
        :param options: options of ``create_async_engine``
        """
        app = self.make(on_connect=on_connect, own=own, session=session, path=path, **options)
        self.opened.append(app)
        if listen is not None:
            for engine in app.engines:
                listen(engine)
        if listen_to_writer is not None:
            listen_to_writer(app.writer)
        if app.database is not None:
            await app.database.open()
        return app

    def make(
        self,
        *,
        on_connect: Callable[[Any], None] | None = None,
        own: dict[str, Any] | None = None,
        session: dict[str, Any] | None = None,
        path: Path | None = None,
        **options: Any,
    ) -> Application:
        """Only create the engines."""
        path = path or self.path
        sessions = {"expire_on_commit": False, **(session or {})}
        if self.stock:
            return self._stock(path, on_connect, sessions, options)
        options |= {"write_timeout": PATIENCE, "read_timeout": PATIENCE, **(own or {})}
        if on_connect is not None:
            options["on_connect"] = on_connect
        url = f"sqlite+aiosqlite:///{path}"
        if self.kind == SWAP_IN:
            engine = create_async_engine(f"{url}?plugin=sa_sqlite_pool", **options)
            assert isinstance(engine.pool, SQLitePool)
            maker = async_sessionmaker(engine, **sessions)
            return Application(self.kind, path, engine, engine, maker, self.enter_by)
        if self.kind == ENGINES:
            writer = create_async_engine(url, poolclass=WriterPool, **options)
            reader = create_async_engine(url, poolclass=ReaderPool, **options)
            maker = routing_sessionmaker(writer=writer, reader=reader, **sessions)
            return Application(self.kind, path, writer, reader, maker, self.enter_by)
        db = SQLiteDatabase(url, **options)
        engines = db.writer_engine, db.reader_engine
        return Application(self.kind, path, *engines, partial(_session_of, db), self.enter_by, db)

    def _stock(
        self,
        path: Path,
        on_connect: Callable[[Any], None] | None,
        sessions: dict[str, Any],
        options: dict[str, Any],
    ) -> Application:
        with outside(path) as connection:  # as this package does, so readers are free
            connection.execute("PRAGMA journal_mode = WAL")
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}", **options)
        if on_connect is not None:
            event.listen(engine.sync_engine, "connect", partial(_in_its_thread, on_connect))
        maker = async_sessionmaker(engine, **sessions)
        return Application(self.kind, path, engine, engine, maker, self.enter_by)

    async def close(self) -> None:
        """Close everything that was opened."""
        for app in reversed(self.opened):
            await app.close()


def _in_its_thread(function: Callable[[Any], None], connection: Any, _record: Any) -> None:
    connection.run_async(lambda driver: driver._execute(function, driver._conn))


async def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` in a new task, which must not wait for any lock or turn; return its result."""
    task = asyncio.ensure_future(work)
    await asyncio.wait([task], timeout=_AT_ONCE)
    if not task.done():
        task.cancel()
        await asyncio.wait([task])
        raise AssertionError("it waits")
    return task.result()


@contextmanager
def outside(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a plain connection, as another program would, which waits for no lock."""
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        yield connection


def is_locked(path: Path) -> bool:
    """Return whether SQLite's write lock is taken, as seen by another program."""
    with outside(path) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        connection.execute("ROLLBACK")
        return False


def _session_of(db: SQLiteDatabase, **options: Any) -> AsyncSession:
    return db.sessionmaker(**options)


def _session(app: Application, **options: Any) -> AsyncSession:
    return app.session(**options)


def _engine_with_role(role: str) -> Way:
    return lambda app: app.writer.execution_options(sqlite_role=role).connect()


def _session_with_role(role: str) -> Way:
    return lambda app: AsyncSession(app.writer.execution_options(sqlite_role=role))


READS: dict[tuple[str, str], Way] = {
    (STOCK, "engine"): lambda app: app.reader.connect(),
    (STOCK, "session"): _session,
    (SWAP_IN, "engine"): lambda app: app.reader.connect(),
    (SWAP_IN, "session"): _session,
    (SWAP_IN, "role-reader"): _engine_with_role("reader"),
    (ENGINES, "reader"): lambda app: app.reader.connect(),
    (ENGINES, "auto"): _session,
    (ENGINES, "role-reader"): partial(_session, role="reader"),
    (FACADE, "reader"): lambda app: app.reader.connect(),
    (FACADE, "auto"): _session,
    (FACADE, "read"): lambda app: app.db.read(),
}
"""Ways in which a program reads."""

READERS = [
    way
    for way in READS
    if way not in {(SWAP_IN, "engine"), (SWAP_IN, "session")} and way[0] != STOCK
]
"""The ways of this package that are readers, or begin as one."""

WRITERS: dict[tuple[str, str], Way] = {
    (SWAP_IN, "role-writer"): _engine_with_role("writer"),
    (SWAP_IN, "session-role-writer"): _session_with_role("writer"),
    (ENGINES, "writer"): lambda app: app.writer.connect(),
    (ENGINES, "role-writer"): partial(_session, role="writer"),
    (FACADE, "writer"): lambda app: app.writer.connect(),
    (FACADE, "write"): lambda app: app.db.write(),
}
"""Ways that acquire the turn with their first statement, whatever it is."""

WRITES: dict[tuple[str, str], Way] = {
    (STOCK, "engine"): lambda app: app.writer.connect(),
    (STOCK, "session"): _session,
    (SWAP_IN, "engine"): lambda app: app.writer.connect(),
    (SWAP_IN, "session"): _session,
    (ENGINES, "auto"): _session,
    (FACADE, "auto"): _session,
    **WRITERS,
}
"""Ways in which a program writes."""
