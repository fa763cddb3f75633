"""The facade, which owns both engines and their life cycle."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import cached_property
from typing import Any, Generic, TypeVar

from sqlalchemy import URL
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.orm import Session

from .backup.backup import DEFAULT_PAGES_PER_STEP, Backups
from .backup.copy_job import Progress
from .closures.api import Closures, RunsClosures
from .closures.write_group import Writes
from .compat.coroutine_functions import mark_as_coroutine_function
from .errors import ConfigurationError
from .files.private_directory import PrivateDirectory
from .files.urls import locate, parse_url
from .freshness import FreshBlock, Seen
from .life_cycle import HURRY_SECONDS, LifeCycle, State
from .pools.base import FairPool
from .pools.impl import DEFAULT_READERS, ReaderPool, WriterPool
from .pools.statistics import statistics_of
from .prepared.api import PreparesReads
from .publishing.publisher import Publisher
from .sessions.given_out import DEFAULT_SESSION_CLASS, GuardedSessionmaker, S_co, SessionBlock
from .sessions.lean import LeanEngine
from .sessions.maker import sessionmaker_options
from .sessions.routing import RoutedSession
from .settings import (
    DEFAULT_IDLE_WARNING,
    DEFAULT_PLACEMENT,
    DEFAULT_PRAGMAS,
    DEFAULT_SLOW_WAIT_WARNING,
    DEFAULT_TIMEOUT,
    ConnectionSettings,
    OnConnect,
    Placement,
    PragmaValue,
    Role,
    WalSettings,
    check_count,
    check_timeout,
    check_wal_settings,
    merge_pragmas,
)
from .stats.database import DatabaseStatistics
from .stats.log import Checkpoint, CheckpointMode, CheckpointOutcome
from .system.clock import time
from .wal.keeper import WalKeeper

D = TypeVar("D", bound="SQLiteDatabase[Any]")

DEFAULT_CLOSE_TIMEOUT = 5.0

_CHOSEN_HERE = frozenset({"max_overflow", "plugins", "pool", "pool_size", "poolclass"})


class SQLiteDatabase(LifeCycle, RunsClosures, PreparesReads, Generic[S_co]):
    """One SQLite database: a writer engine, a reader engine, and sessions over both.

    ::

        db = SQLiteDatabase("sqlite+aiosqlite:///app.db", readers=4, write_timeout=30.0)
        async with db:
            async with db.write() as session: ...
            async with db.read() as session: ...

    :param url: a ``sqlite+aiosqlite`` URL as string or ``sqlalchemy.URL``, or the path of a file;
        ``":memory:"`` for a database that lives as long as this object
    :param pragmas: override the defaults, such as ``{"synchronous": "FULL"}``
    :param readers: how many connections read at once; further tasks wait in order of arrival
    :param write_timeout: seconds to wait for the right to write, from the call
    :param read_timeout: seconds to wait for a reader, from the call
    :param on_connect: called with each new ``sqlite3.Connection``, in its own thread
    :param statement_timeout: seconds a statement may run before it is stopped and raises
        :class:`~sa_sqlite_pool.StatementTimeout`; None for no limit. The execution option of the
        same name applies to one statement
    :param idle_warning: seconds a transaction may sit idle before the logger ``sa_sqlite_pool``
        names its task and the line of its checkout; None for never
    :param slow_wait_warning: seconds a task may wait for the write turn or a reader before the same
        logger names it, its line, and what was in the way; None for never
    :param slow_statement_warning: seconds a statement may run before the same logger names it, and
        the line of its execution; None for never
    :param close_timeout: seconds for which :meth:`close` lets running work continue
    :param wal: how large the write-ahead log may grow, and what this may cost readers
    :param file_turn: wait in line with the writers of other processes, too, using locks on two
        files beside the database; False leaves this to SQLite's own lock, which keeps no order
    :param placement: ``"auto"`` runs statements that are known to be short on the event loop itself
        and all others in a thread; ``"thread"`` runs all in a thread; ``"inline"`` none, however
        long they take, for a program whose loop has nothing else to do
    :param keep_wal: leave the ``-wal`` and ``-shm`` files in place when the last connection is
        closed, as Litestream and other replicators require; otherwise SQLite runs a checkpoint and
        removes them
    :param publish_status: answer ``sa-sqlite-pool status``, at a socket beside the database that
        only this user may use; False creates none
    :param session_class: the application's own session class, any subclass of ``AsyncSession``,
        such as SQLModel's, for :meth:`read`, :meth:`write` and :attr:`sessionmaker`; its
        synchronous class is used for :meth:`run_read` and :meth:`run_write`
    :param group_commit: calls of :meth:`run_write` that wait at the same time share one COMMIT
    :param engine_options: all options of ``create_async_engine`` (``echo``, ``connect_args``,
        ``json_serializer``, ``pool_pre_ping``, …), for both engines

    Invalid arguments raise :class:`~sa_sqlite_pool.ConfigurationError` here, before any file is
    touched. Any number of tasks, event loops and threads may share the object. A forked child
    process opens its own connections.
    """

    def __init__(
        self,
        url: str | URL | os.PathLike[str],
        *,
        pragmas: Mapping[str, PragmaValue] | None = None,
        readers: int = DEFAULT_READERS,
        write_timeout: float = DEFAULT_TIMEOUT,
        read_timeout: float = DEFAULT_TIMEOUT,
        on_connect: OnConnect | None = None,
        statement_timeout: float | None = None,
        idle_warning: float | None = DEFAULT_IDLE_WARNING,
        close_timeout: float = DEFAULT_CLOSE_TIMEOUT,
        wal: WalSettings | None = None,
        file_turn: bool = True,
        placement: str = DEFAULT_PLACEMENT,
        slow_wait_warning: float | None = DEFAULT_SLOW_WAIT_WARNING,
        slow_statement_warning: float | None = None,
        keep_wal: bool = False,
        publish_status: bool = True,
        group_commit: bool = True,
        session_class: type[S_co] = DEFAULT_SESSION_CLASS,  # type: ignore[assignment]
        **engine_options: Any,
    ) -> None:
        if refused := _CHOSEN_HERE & engine_options.keys():
            raise ConfigurationError(
                f"{', '.join(sorted(refused))}: SQLiteDatabase chooses its pools; set readers, or "
                "create the engines yourself and use routing_sessionmaker()"
            )
        if "sqlite_role" in (engine_options.get("execution_options") or ()):
            raise ConfigurationError(
                "sqlite_role: the engines of SQLiteDatabase have fixed roles; leave it out, and "
                "use read() or write()"
            )
        check_count("readers", readers)
        self._private_directory: PrivateDirectory | None = None
        self.url: URL = self._own_if_in_memory(parse_url(url))
        settings = ConnectionSettings(
            merge_pragmas(DEFAULT_PRAGMAS, pragmas),
            write_timeout,
            read_timeout,
            on_connect,
            statement_timeout,
            idle_warning,
            check_wal_settings(wal),
            file_turn,
            Placement.parse(placement),
            slow_wait_warning,
            slow_statement_warning,
        )
        self._write_timeout = settings.write_timeout
        super().__init__(check_timeout("close_timeout", close_timeout))
        self._keep_wal = keep_wal
        options = {**engine_options, **settings.options()}
        self.writer_engine: AsyncEngine = LeanEngine.create(
            self.url, poolclass=WriterPool, **options
        )
        self.reader_engine: AsyncEngine = LeanEngine.create(
            self.url, poolclass=ReaderPool, pool_size=readers, **options
        )
        self._share_private_directory()
        if keep_wal:
            self._pools[1].keep_log()
        self._sessionmaker: GuardedSessionmaker[S_co] = GuardedSessionmaker(
            self._assert_usable,
            **sessionmaker_options(
                writer=self.writer_engine, reader=self.reader_engine, class_=session_class
            ),
        )
        writes = Writes(
            self.writer_engine, self._label, settings.write_timeout, together=group_commit
        )
        own: type[Session] = session_class.sync_session_class
        beneath = Session if issubclass(own, RoutedSession) else own
        self._closures = Closures(writes, self.reader_engine, self._label, session_class=beneath)
        self._backups = Backups(self.writer_engine, locate(self.url), settings.read_timeout)
        self._publisher = Publisher(self.statistics) if publish_status else None

    # -- life cycle -----------------------------------------------------------------------------

    async def open(self: D) -> D:
        """Open the first connection of each engine, which creates the file and switches it to WAL.

        If an earlier process has left a large log, wait for a checkpoint of it. Raise
        ``sqlalchemy.exc.OperationalError`` or ``DatabaseError``, with advice, if the file cannot
        be used. Opening an open database does nothing; a closed one is reopened, possibly in
        another event loop; an in-memory database is then empty.
        """
        return await super().open()

    def _admit(self) -> None:
        if self._private_directory is not None:
            self._begin_in_memory()
        for pool in self._pools:
            pool.admit()

    def _begin_in_memory(self) -> None:
        """Start a new database: old connections that are still being closed keep the old one."""
        self._private_directory = PrivateDirectory()
        self.url = self.url.set(database=self._private_directory.database)
        location = self._backups.location = locate(self.url)
        for engine, pool in zip((self.reader_engine, self.writer_engine), self._pools, strict=True):
            engine.sync_engine.url = self.url
            pool.move_to(location)
        self._share_private_directory()

    def _share_private_directory(self) -> None:
        """Let the engines keep the directory, in case the application keeps only an engine."""
        for pool in self._pools:
            pool.keep_directory(self._private_directory)

    async def _open_engines(self) -> None:
        for engine in (self.writer_engine, self.reader_engine):
            async with engine.connect():
                pass
        if self._keeper is not None:
            await self._keeper.tidy_up()

    def _has_opened(self) -> None:
        file = None if self._private_directory is not None else self._pools[1].published_file
        if self._publisher is not None and file is not None:
            self._publisher.open(file)

    async def _end_work(self, timeout: float) -> None:
        pools, term = self._pools, self._term
        for pool in pools:
            pool.refuse(self._refusal())
            pool.recall_stranded()
            pool.collect_abandoned()  # so that close() does not wait for streams without clients
        self._closures.refuse(self._not_open)
        try:
            await self._all_ended(pools, timeout)
        finally:  # even if the loop is ending and cancels this task
            if self._term is term:
                self._backups.stop(self._not_open)
                for pool in pools:
                    pool.refuse(self._refusal())  # tasks that by now wait for another process
                    pool.recall(f"{self._label} was closed")
        await self._all_ended(pools, HURRY_SECONDS)

    async def _all_ended(self, pools: Iterable[FairPool], timeout: float) -> None:
        checkouts = (pool.checkouts.all_ended(timeout) for pool in pools)
        await asyncio.gather(*checkouts, self._backups.all_ended(timeout))

    async def _dispose_engines(self) -> None:
        # The last connection to close runs a checkpoint and removes the log
        # (https://www.sqlite.org/wal.html), unless it is a reader, which may not.
        engines, keeper = [self.reader_engine, self.writer_engine], self._keeper
        if self._keep_wal:
            engines.reverse()
        async with contextlib.AsyncExitStack() as stack:  # each, even if another one raises
            if keeper is not None:
                stack.callback(keeper.monitor.size)  # last: closes a log that is gone
                if not (self._keep_wal or self._pools[1].at_rest):
                    stack.push_async_callback(keeper.checkpointing.close_last)
            for engine in reversed(engines):
                stack.push_async_callback(engine.dispose)
            if keeper is not None:
                await keeper.stop()

    def _has_closed(self) -> None:
        if self._publisher is not None:
            self._publisher.close()
        if self._private_directory is not None:
            self._private_directory.remove()

    # -- work -----------------------------------------------------------------------------------

    @property
    def sessionmaker(self) -> async_sessionmaker[S_co]:
        """The routed session maker: ``Session()``, ``Session(role="writer")``, ``…"reader"``.

        It may be kept from the start, for example for ``async_scoped_session``; creating a session
        while the database is not open raises :class:`~sa_sqlite_pool.DatabaseClosedError`.
        """
        return self._sessionmaker

    def _assert_usable(self) -> None:
        self._assert_open()
        self._closures.assert_outside()

    def fresh(self, token: str | None = None) -> AbstractAsyncContextManager[Seen]:
        """Return a context in which reads show what its tasks have written, as they always do here.

        It has no effect, and ``token`` is ignored; it is an argument of
        :meth:`.ServerDatabase.fresh`, and the same code runs on both.
        """
        return FreshBlock(self, Seen())

    def write(self) -> AbstractAsyncContextManager[S_co]:
        """Return the context of a session that writes: ``async with db.write() as session:``.

        BEGIN IMMEDIATE is sent with its first statement, in the write turn. The session commits at
        the end of the block, and rolls back if the block raises; after a ``commit()`` within it,
        the next statement acquires the turn again. Wait at most ``write_timeout`` seconds for the
        turn, then raise :class:`~sa_sqlite_pool.WriteTimeout`; raise
        :class:`~sa_sqlite_pool.TurnAlreadyHeldError` at once if the task already holds it. Using
        the session after the block raises :class:`~sa_sqlite_pool.SessionEndedError`.
        """
        return SessionBlock(self._sessionmaker, {"role": Role.WRITER}, "db.write()")

    def read(self, *, long: bool = False) -> AbstractAsyncContextManager[S_co]:
        """Return the context of a session that reads: ``async with db.read() as session:``.

        It sees one snapshot from its first statement on, and cannot write. Wait at most
        ``read_timeout`` seconds for a reader, then raise :class:`~sa_sqlite_pool.ReadTimeout`. It
        never waits for a writer. If the log has reached its hard limit, the first statement waits
        briefly; see :class:`~sa_sqlite_pool.WalSettings`.

        ``long`` declares a snapshot that is needed for a long time, for example for a report: it
        keeps the log from shrinking, is named in a warning at the hard limit, and has no age limit.
        """
        reader = self._long_reader if long else self.reader_engine
        options = {"role": Role.READER, "reader": reader}
        return SessionBlock(self._sessionmaker, options, "db.read()")

    # -- the log --------------------------------------------------------------------------------

    async def checkpoint(self, mode: str = "passive", timeout: float | None = None) -> Checkpoint:
        """Run a checkpoint now; the keeper runs checkpoints automatically.

        :param mode: ``"passive"`` writes to the database what no reader needs any more. ``"full"``,
            ``"restart"`` and ``"truncate"`` make new readers wait for at most twice ``reader_gap``
            seconds while running ones end, and write all of it; ``"truncate"`` also empties the log
        :param timeout: seconds to wait for the write turn, by default ``write_timeout``

        Return the result, even if readers or other processes are in the way: see ``outcome`` and
        ``held_back_by``. Raise :class:`~sa_sqlite_pool.WriteTimeout` if the turn is not acquired in
        time, and ``sqlalchemy.exc.OperationalError`` if the disk is full or broken; no data is lost
        then. A cancellation stops it at any moment, again without losing data.
        """
        self._assert_open()
        wanted, keeper = CheckpointMode.parse(mode), self._keeper
        if keeper is None:
            return Checkpoint(wanted, CheckpointOutcome.NOT_WAL, False, -1, -1, 0.0)
        wait = self._write_timeout if timeout is None else check_timeout("timeout", timeout)
        try:
            return await keeper.checkpoint(wanted, wait)
        except sqlite3.Error as error:
            if self._state is not State.OPEN:  # closed meanwhile
                raise self._not_open() from error
            raise OperationalError("PRAGMA wal_checkpoint", None, error) from error

    # -- copies ---------------------------------------------------------------------------------

    async def backup(
        self,
        path: str | os.PathLike[str],
        *,
        progress: Progress | None = None,
        pages_per_step: int = DEFAULT_PAGES_PER_STEP,
    ) -> None:
        """Copy the database, as it is at this moment, to the file ``path``, while others write.

        :param path: the file of the copy; an older copy is replaced atomically
        :param progress: called in the event loop as ``progress(pages_copied, pages_total)`` after
            steps, as often as it keeps up, and after the last; an exception in it ends the backup
        :param pages_per_step: how many pages are copied between two checks whether to stop

        The copy has been verified and synced to disk when this returns. In WAL mode no writer
        waits, and the log cannot shrink meanwhile; in other journal modes writers wait in line.

        Raise ``sqlalchemy.exc.OperationalError`` if the path cannot be used, is in use, or the disk
        is full, ``DatabaseError`` if the copy is damaged, and
        :class:`~sa_sqlite_pool.DatabaseClosedError` if :meth:`close` ends it. After an error or a
        cancellation, nothing is left of the copy, and an older copy is unchanged.
        """
        self._assert_open()
        await self._backups.make(path, progress, pages_per_step)

    def statistics(self) -> DatabaseStatistics:
        """Return what the database has done so far and is doing now; see :func:`.statistics`.

        ``later - earlier`` covers the time in between. Never waits, and may be called from any
        thread, even while the event loop is blocked.
        """
        self._assert_open()
        return statistics_of(self._pools)

    def __repr__(self) -> str:
        return f"<SQLiteDatabase {self._label} {self._status()}>"

    def _status(self) -> str:
        if self._state is not State.OPEN:
            return str(self._state.value)
        readers, writer = self._pools
        turn, holder = writer.turn, writer.turn.holder
        status = "idle" if holder is None else f"busy({time.monotonic() - holder.since:.1f}s)"
        return (
            f"open writer={status} waiting={turn.waiting} "
            f"readers={readers.checkedout()}/{readers.size()}"
        )

    @property
    def _pools(self) -> tuple[ReaderPool, WriterPool]:
        readers, writer = self.reader_engine.pool, self.writer_engine.pool
        assert isinstance(readers, ReaderPool)
        assert isinstance(writer, WriterPool)
        return readers, writer

    @cached_property
    def _long_reader(self) -> AsyncEngine:
        """The reader engine, for transactions that are declared long."""
        return self.reader_engine.execution_options(sqlite_long_read=True)

    @property
    def _keeper(self) -> WalKeeper | None:
        """The keeper; None without a log: in another journal mode, or if the file is read-only."""
        return self._pools[1].keeper

    @property
    def _label(self) -> str:
        return locate(self.url).label

    def _own_if_in_memory(self, url: URL) -> URL:
        """Return ``url``, or for a private in-memory database that of a file both engines share."""
        if not locate(url).private:
            return url
        self._private_directory = PrivateDirectory()
        return url.set(database=self._private_directory.database, query={})


for _method in (
    RunsClosures.run_read,
    RunsClosures.run_read_core,
    RunsClosures.run_write,
    RunsClosures.run_write_core,
):
    mark_as_coroutine_function(_method)
