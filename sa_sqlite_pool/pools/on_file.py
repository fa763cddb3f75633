"""State that a pool shares with the engine's next pool, and with other pools on its file."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

from ..database_file import DatabaseFile, database_file
from ..opening.connector import Connector
from ..settings import Role
from ..stats.counts import EngineCounts
from ..transactions.rules import Rules
from ..turn.waits import WaitWatch
from ..wal.keeper import WalKeeper


class OnFile:
    """Base class of a pool: the state of its engine and its file, and the rules that follow."""

    role: ClassVar[Role]
    _connector: Connector
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
