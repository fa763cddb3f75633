"""A pool on its file: the state that it shares with other pools, and how connections are opened."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, cast

from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_only

from ..database_file import DatabaseFile, OfFile, database_file
from ..driver.adapter import SQLiteConnection
from ..driver.executor import Executor
from ..files.location import Location
from ..files.open_files import open_files
from ..opening.connector import Connector
from ..opening.creator import Opened
from ..settings import Role
from ..stats.counts import EngineCounts
from ..system.forks import rest
from ..transactions.rules import Rules
from ..turn.fair_semaphore import FairSemaphore
from ..turn.waits import WaitWatch
from ..wal.keeper import WalKeeper
from .resting import KeptConnections


class OnFile:
    """Base class of a pool: the state of its engine and its file, and new connections to it."""

    role: ClassVar[Role]
    # Cached properties that depend on the file, which may turn out not to be the URL's.
    _of_file: ClassVar[Sequence[str]] = ("database_file", "_keeper")
    _connector: Connector
    _dialect: Any  # SQLAlchemy declares less than it has
    _kept: KeptConnections
    _first_opening: FairSemaphore
    # That of the engine's pool before, kept for what it has counted: it is found again if it is
    # the same file.
    _file_before: DatabaseFile | None = None

    @property
    def counts(self) -> EngineCounts:
        """The counters of the engine, which ``dispose()`` does not reset."""
        return self._connector.counts

    @property
    def has_begun(self) -> bool:
        """True once the engine knows its file, which is at its first checkout."""
        return self._connector.knows_file

    @property
    def refuses(self) -> bool:
        """True once :meth:`refuse` has been called: the database is being closed, or is closed."""
        return self._connector.refusal is not None

    @property
    def owner(self) -> object:
        """The object on whose behalf tasks wait in lines; ``dispose()`` does not change it."""
        return self._connector

    @property
    def wait_watch(self) -> WaitWatch:
        """The watch over the waits of the engine."""
        return self._connector.wait_watch

    @cached_property
    def database_file(self) -> DatabaseFile:
        """The object that all pools of the process on the same file share."""
        found = database_file(self._connector.location)
        if self._connector.shares_turn:
            found.turn.share()
        return found

    @property
    def published_file(self) -> str | None:
        """The file beside which other processes may find a socket of this one, or None.

        Sockets belong to one machine, and calls may block where a server stores the file.
        """
        connector = self._connector
        shown = connector.location.writable and not connector.site.unreliable
        return self.database_file.file if shown else None

    @property
    def keeper(self) -> WalKeeper | None:
        """The keeper of the file's log; None if there is no log to keep."""
        return self._keeper if self._connector.has_log else None

    @cached_property
    def _keeper(self) -> WalKeeper:
        keeper = self.database_file.keeper(self._connector.location)
        if self.role is not Role.READER:
            keeper.configure(self._connector.settings)
        return keeper

    def _let_go_of_log(self) -> None:
        """Close a log that was deleted with the last connection, so that disk space is freed."""
        keeper: WalKeeper | None = vars(self).get("_keeper")
        if keeper is not None:
            keeper.monitor.size()

    def _rules(self) -> Rules:
        connector, keeper = self._connector, self.keeper
        settings = connector.settings
        reads, writes = self.role is not Role.WRITER, self.role is not Role.READER
        file, journal = self.database_file, self._connector.has_rollback_journal
        # Whether other connections need to know about read transactions.
        known = journal or keeper is not None or connector.location.shares_cache
        return Rules(
            role=self.role,
            label=connector.location.label,
            turn=file.turn,
            snapshots=file.snapshots,
            write_timeout=settings.write_timeout,
            read_timeout=settings.read_timeout,
            write_timeout_given=settings.write_timeout_given,
            read_timeout_given=settings.read_timeout_given,
            statement_timeout=settings.statement_timeout,
            owner=connector,
            wait_watch=connector.wait_watch,
            slow_statements=connector.slow_statements,
            enters_snapshots=reads and known,
            commits_wait=journal,
            keeper=keeper if writes else None,
            file=file.file,
            waits_for_server=connector.site.unreliable,
            opened_read_only=connector.opens_read_only,
        )

    # -- new connections ------------------------------------------------------------------------

    def _find_file(self) -> None:
        connector, site = self._connector, self._connector.site
        first = await_only(self._first_opening.acquire(None))
        assert first is not None
        try:
            if not connector.knows_file:
                connector.find_file()
                self._forget_file()
        finally:
            self._first_opening.release(first)
        if connector.site is not site:
            await_only(connector.inspect_site())

    def _forget_file(self) -> None:
        for name in self._of_file:
            self.__dict__.pop(name, None)

    def _open(self, connection_record: ConnectionPoolEntry | None = None) -> Any:
        while (executor := self._open_at(self._connector.location, connection_record)) is None:
            pass
        if (keeper := executor.rules.keeper) is not None and keeper.due is not None:
            keeper.attend()  # an earlier process left a large log behind
        dbapi = self._dialect.dbapi
        return SQLiteConnection(dbapi, executor, self._kept.add, self._connector.isolation_level)

    def _open_at(
        self, location: Location, connection_record: ConnectionPoolEntry | None
    ) -> Executor | None:
        """Open a connection; return None if an in-memory database at ``location`` ends meanwhile.

        Another task or thread has disposed of the engine then: part of the connection's state would
        be that of the old database, and part that of the new one. A task that has waited in the
        line of an old pool opens what the next pool opens.
        """
        if self.database_file.file != location.file:
            self._forget_file()
        try:
            executor = self._new_executor(connection_record)
        except Exception:
            if self._connector.location == location:
                raise
            return None
        if self._connector.location == location:
            return executor
        await_only(executor.worker.close())
        return None

    def _new_executor(self, connection_record: ConnectionPoolEntry | None) -> Executor:
        rules = self._rules()
        self.database_file.pools.add(cast(OfFile, self))  # as each pool is
        if kept := self._kept.take():
            return Executor(*kept, rules)
        if self.database_file.file is not None:
            self._leave_old_file(self.database_file.file)
        opened = self._stock(connection_record, rules)
        return await_only(self._connector.finish(opened, rules))

    def _stock(self, connection_record: ConnectionPoolEntry | None, rules: Rules) -> Opened:
        """Return a connection opened by the dialect or by the application's own creator."""
        with rest():  # aiosqlite opens it in a thread of its own
            return self._connector.open(connection_record, rules)

    def _leave_old_file(self, path: str) -> None:
        """Close connections at rest to a file that was deleted or replaced since they were opened.

        A test may do that before it creates a new engine. SQLite finds the log by the name of the
        database, so a new connection would use the old log, which the last old connection deletes.
        """
        if open_files.is_replaced(path):
            self.database_file.close_at_rest()
        elif open_files.has_lost_log(path):
            self.database_file.leave_log()
        open_files.assert_may_open(path)
