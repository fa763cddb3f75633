"""The facade over a PostgreSQL primary and its replicas."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from sqlalchemy import URL, Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, async_sessionmaker
from sqlalchemy.orm import Session

from ..compat.greenlets import greenlet_spawn
from ..errors import ConfigurationError
from ..freshness import FreshBlock, Seen
from ..functions import assert_plain, checked
from ..life_cycle import HURRY_SECONDS, LifeCycle, State
from ..postgresql.urls import server_url
from ..sessions.given_out import DEFAULT_SESSION_CLASS, GuardedSessionmaker, S_co, SessionBlock
from ..sessions.maker import sessionmaker_options
from ..settings import (
    DEFAULT_IDLE_WARNING,
    DEFAULT_SLOW_WAIT_WARNING,
    DEFAULT_TIMEOUT,
    Role,
    check_count,
    check_limit,
    check_timeout,
    choose,
)
from ..stats.servers import ServerDatabaseStatistics
from ..turn.waits import WaitWatch
from .engines import EngineSettings, Writes, reader_engine, writer_engine
from .pool import DEFAULT_CONNECTIONS, ServerPool
from .primary import PrimaryPool
from .replicas import DEFAULT_FRESHNESS_WAIT, ReplicaPool
from .retries import DEFAULT_ATTEMPTS, Retries
from .rules.arguments import check_engine_options, parse_replica
from .rules.functions import guarded
from .rules.schema import share_schema_changes
from .statistics import statistics_of

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D", bound="ServerDatabase[Any]")

DEFAULT_CLOSE_TIMEOUT = 5.0


class ServerDatabase(LifeCycle, Generic[S_co]):
    """A PostgreSQL database: a primary for writes, and replicas for reads.

    It has the interface and the errors of :class:`~sa_sqlite_pool.SQLiteDatabase`::

        db = ServerDatabase(
            "postgresql+asyncpg://app@primary/app",
            replicas=["postgresql+asyncpg://app@replica1/app"],
        )
        async with db:
            async with db.write() as session: ...
            async with db.fresh():
                async with db.read() as session: ...

    :param url: the URL of the primary, with the driver ``asyncpg`` or ``psycopg``; if it names no
        driver, the one that is installed is used, asyncpg first
    :param replicas: the URLs of its replicas, one server each; without any, the primary also reads
    :param writes: ``"in turn"``: one transaction writes at a time across all processes, as on
        SQLite; ``"serializable"``: transactions write concurrently, and of those that would see
        each other, all but one fail, which :meth:`run_write` retries
    :param writers: how many connections may write at once, with ``writes="serializable"``
    :param readers: how many connections to each server may read at once
    :param write_timeout: seconds to wait for the turn, or for a connection that writes
    :param read_timeout: seconds to wait for a connection that reads
    :param freshness_wait: seconds a read in a :meth:`fresh` block waits for a replica to catch up
        before it uses the primary
    :param statement_timeout: seconds a statement may run before the server cancels it and
        :class:`~sa_sqlite_pool.StatementTimeout` is raised; None for no limit. The execution option
        of the same name limits a single statement
    :param idle_warning: seconds a transaction may be idle before the logger ``sa_sqlite_pool``
        names its task and its line; None for never
    :param attempts: how many times :meth:`run_write` and :meth:`run_read` run a function at most
    :param slow_wait_warning: seconds a task may wait for the turn or a connection before the
        logger ``sa_sqlite_pool`` names it, its line, and what blocked it; None for never
    :param close_timeout: seconds that :meth:`close` lets running work continue
    :param session_class: the application's session class, any subclass of ``AsyncSession``
    :param engine_options: all options of ``create_async_engine``, for both engines

    Invalid arguments raise :class:`~sa_sqlite_pool.ConfigurationError` here, before any server is
    contacted. The object belongs to one event loop, as the drivers' connections do.
    """

    def __init__(
        self,
        url: str | URL,
        *,
        replicas: Sequence[str | URL] = (),
        writes: str = Writes.IN_TURN.value,
        writers: int = DEFAULT_CONNECTIONS,
        readers: int = DEFAULT_CONNECTIONS,
        write_timeout: float = DEFAULT_TIMEOUT,
        read_timeout: float = DEFAULT_TIMEOUT,
        freshness_wait: float = DEFAULT_FRESHNESS_WAIT,
        statement_timeout: float | None = None,
        idle_warning: float | None = DEFAULT_IDLE_WARNING,
        attempts: int = DEFAULT_ATTEMPTS,
        slow_wait_warning: float | None = DEFAULT_SLOW_WAIT_WARNING,
        close_timeout: float = DEFAULT_CLOSE_TIMEOUT,
        session_class: type[S_co] = DEFAULT_SESSION_CLASS,  # type: ignore[assignment]
        connect_args: Mapping[str, Any] | None = None,
        **engine_options: Any,
    ) -> None:
        super().__init__(check_timeout("close_timeout", close_timeout))
        check_engine_options(engine_options)
        if isinstance(replicas, (str, URL)):
            raise ConfigurationError(f"replicas must be a list of URLs, not {replicas!r}")
        self.url: URL = server_url(url)
        settings = EngineSettings(
            primary=self.url,
            replicas=[parse_replica(one, self.url) for one in replicas],
            owner=self,
            writes=choose(Writes, "writes", writes),
            writers=check_count("writers", writers),
            readers=check_count("readers", readers),
            write_timeout=check_timeout("write_timeout", write_timeout),
            read_timeout=check_timeout("read_timeout", read_timeout),
            freshness_wait=check_timeout("freshness_wait", freshness_wait),
            statement_timeout=check_limit("statement_timeout", statement_timeout),
            idle_warning=check_limit("idle_warning", idle_warning),
            wait_watch=WaitWatch(check_limit("slow_wait_warning", slow_wait_warning)),
            options=engine_options,
            connect_args=dict(connect_args or {}),
        )
        self._retries = Retries(self, check_count("attempts", attempts))
        self.writer_engine: AsyncEngine = writer_engine(settings)
        self.reader_engine: AsyncEngine = reader_engine(settings)
        share_schema_changes(self.writer_engine.sync_engine, self.reader_engine.sync_engine)
        self._sessionmaker: GuardedSessionmaker[S_co] = GuardedSessionmaker(
            self._assert_open,
            **sessionmaker_options(
                writer=self.writer_engine, reader=self.reader_engine, class_=session_class
            ),
        )

    # -- life cycle -----------------------------------------------------------------------------

    async def open(self: D) -> D:
        """Open a connection to the primary and to each replica.

        A replica that cannot be reached is logged and counts as down; for the primary, the error
        of its driver is raised. Opening an open database does nothing; a closed one is reopened.
        """
        return await super().open()

    def _admit(self) -> None:
        for pool in (self._readers, self._writers):
            pool.admit()

    async def _open_engines(self) -> None:
        async with self.writer_engine.connect():
            pass
        await greenlet_spawn(self._readers.open_replicas)

    async def _end_work(self, timeout: float) -> None:
        readers, term = self._readers, self._term
        pools: tuple[ServerPool, ...] = (readers, self._writers)
        all_out = [pool.checked_out for pool in pools]
        for pool in pools:
            pool.refuse(self._refusal())
        for pool, out in zip(pools, all_out, strict=True):
            await greenlet_spawn(out.give_up_stranded)
            pool.collect_abandoned()  # else it would wait for streams that lost their clients
        try:
            await asyncio.gather(*(out.all_returned(timeout) for out in all_out))
        finally:
            for pool in pools if self._term is term else ():
                pool.abort()
        await asyncio.gather(*(out.all_returned(HURRY_SECONDS) for out in all_out))
        await readers.stopped()

    async def _dispose_engines(self) -> None:
        async with contextlib.AsyncExitStack() as stack:  # each, even if the other fails
            for engine in (self.writer_engine, self.reader_engine):
                stack.push_async_callback(engine.dispose)

    # -- work -----------------------------------------------------------------------------------

    @property
    def sessionmaker(self) -> async_sessionmaker[S_co]:
        """The routed session maker: ``Session()``, ``Session(role="writer")``, ``…"reader"``."""
        return self._sessionmaker

    def write(self) -> AbstractAsyncContextManager[S_co]:
        """Return a context manager for a writer session: ``async with db.write() as session:``.

        Its transaction begins with its first statement, commits when the block ends, and rolls back
        when it raises. With ``writes="in turn"``, it holds the write turn: wait at most
        ``write_timeout`` seconds for it, then raise :class:`~sa_sqlite_pool.WriteTimeout`; raise
        :class:`~sa_sqlite_pool.TurnAlreadyHeldError` at once if the same task requests it twice.
        With ``"serializable"``, any statement and the end of the block may raise a serialization
        failure, SQLAlchemy's ``DBAPIError`` with the SQLSTATE 40001: begin the block again.
        """
        return SessionBlock(self._sessionmaker, {"role": Role.WRITER}, "db.write()")

    def read(self, *, long: bool = False) -> AbstractAsyncContextManager[S_co]:
        """Return a context manager for a reader session: ``async with db.read() as session:``.

        From its first statement on, it sees one snapshot of a replica, and it cannot write; within
        :meth:`fresh`, the snapshot contains what was written. Wait at most ``read_timeout`` seconds
        for a connection, then raise :class:`~sa_sqlite_pool.ReadTimeout`. ``long`` is for SQLite.
        """
        return SessionBlock(self._sessionmaker, {"role": Role.READER}, "db.read()")

    def fresh(self, token: str | None = None) -> AbstractAsyncContextManager[Seen]:
        """Return a block in which reads show what its tasks have written: ``async with …``.

        They also show what its tasks have read: no read goes back in time, whichever replica it
        uses. All tasks started in the block share it. ``token`` continues an earlier block, in
        another process, a job, or a later request: it is ``seen.token`` after the end of that one.

        Raise :class:`~sa_sqlite_pool.ConfigurationError` if ``token`` is not a freshness token.
        """
        return FreshBlock(self, Seen(token, self._settle))

    async def _settle(self, seen: Seen) -> None:
        await greenlet_spawn(self._readers.settle, seen)

    async def run_read(
        self, fn: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``fn(session, ...)`` on a reader: ``await db.run_read(fn, ...)``.

        ``fn`` is a plain function; ``session`` is a synchronous ``Session`` that sees one snapshot
        and cannot write. Its statements are awaited beneath it, in the task of the caller. If a
        replica cancels the read in favour of what it replays (a conflict with recovery), ``fn``
        runs again, as in :meth:`run_write`.

        Raise :class:`~sa_sqlite_pool.ClosureError` if ``fn`` ends its transaction.
        """
        return await self._run(fn, self.read, args, kwargs)

    async def run_write(
        self, fn: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``fn(session, ...)`` in one transaction that writes: ``await db.run_write(fn, ...)``.

        It is committed when this method returns, and rolled back if ``fn`` raises. If the server
        aborts the transaction in favour of another (a serialization failure, a deadlock), ``fn``
        runs again, in a new session, at most ``attempts`` times, so it must have no effects except
        through its session. The last failure is raised.

        Raise :class:`~sa_sqlite_pool.ClosureError` if ``fn`` itself commits or rolls back; use
        ``begin_nested()`` for a part that may fail.
        """
        return await self._run(fn, self.write, args, kwargs)

    async def run_read_core(
        self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``fn`` as :meth:`run_read` does, with a ``Connection``."""
        return await self._run(fn, self._reading, args, kwargs)

    async def run_write_core(
        self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``fn`` as :meth:`run_write` does, with a ``Connection``."""
        return await self._run(fn, self.writer_engine.begin, args, kwargs)

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        async with self.reader_engine.connect() as connection:
            await connection.begin()  # READ ONLY, also for work that the driver does first
            yield connection

    async def _run(
        self,
        fn: Callable[..., T],
        block: Callable[[], AbstractAsyncContextManager[Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> T:
        """Run ``fn`` in a transaction, with the session or connection of ``block()``."""
        self._assert_open()
        assert_plain(fn)
        call = guarded(checked(lambda target: fn(target, *args, **kwargs), fn))

        async def transaction() -> T:
            async with block() as target:
                result: T = await target.run_sync(call)
                return result

        return await self._retries.run(transaction)

    # -- inspection -----------------------------------------------------------------------------

    def statistics(self) -> ServerDatabaseStatistics:
        """Return statistics of what the database has done so far, and is doing now, on its servers.

        ``later - earlier`` is what happened in between. The call queries no server, waits for
        nothing, and may be made in any thread, even while the event loop is blocked.
        """
        self._assert_open()
        return statistics_of(self._readers, self._writers, self._retries.retried)

    def __repr__(self) -> str:
        return f"<ServerDatabase {self._label} {self._status()}>"

    def _status(self) -> str:
        if self._state is not State.OPEN:
            return str(self._state.value)
        replicas = self._readers.replicas
        up = sum(server.is_up for server in replicas)
        return f"open, {up} of {len(replicas)} replicas up"

    @property
    def _label(self) -> str:
        return self._writers.primary.name

    @property
    def _writers(self) -> PrimaryPool:
        pool = self.writer_engine.pool
        assert isinstance(pool, PrimaryPool)
        return pool

    @property
    def _readers(self) -> ReplicaPool:
        pool = self.reader_engine.pool
        assert isinstance(pool, ReplicaPool)
        return pool
