"""The set-up of a connection once it is open: PRAGMAs, the switch to WAL, the authorizer.

All of it runs in the connection's thread, before the application gets the connection. This module
decides which PRAGMAs a connection has initially; :mod:`~sa_sqlite_pool.sqlite.configuring` sends
them. For the application's later ones, see :mod:`~sa_sqlite_pool.transactions.own_settings`, and
:mod:`~sa_sqlite_pool.driver.outside_transactions` for those that SQLite ignores in a transaction.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Mapping
from typing import Any, final

from ..compat.main_greenlets import keep_main_greenlet
from ..errors import ConfigurationError
from ..files.location import Location
from ..files.private_directory import is_private
from ..files.site import Site
from ..settings import ConnectionSettings, Placement, Role
from ..sqlite.authorizer import Authorizer
from ..sqlite.configuring import NotPrepared, configure, file_of, is_prepared
from ..sqlite.driver_errors import dbapi
from ..sqlite.inspection import ask
from ..sqlite.isolation import take_isolation_level
from ..sqlite.shared_hooks import install_authorizer
from ..stats.counts import EngineCounts
from ..transactions.placement import PlacementPolicy
from ..transactions.rules import Keeper
from .creator import Arguments, Creator

# PRAGMAs of the file or the writer; a reader neither needs nor may set them.
_WRITER_PRAGMAS = frozenset(
    {"auto_vacuum", "journal_mode", "journal_size_limit", "page_size", "wal_autocheckpoint"}
)

# The default busy timeout of sqlite3's connections, in milliseconds.
_DEFAULT_BUSY_TIMEOUT = 5000


@final
class SetUps:
    """The state that the set-ups of one engine's connections share.

    ``isolation_level`` is the level of the connection set up last; None means autocommit.
    ``prepared`` is True once the database is known to be ready for readers.
    """

    def __init__(
        self,
        role: Role,
        settings: ConnectionSettings,
        arguments: Arguments,
        creator: Creator,
        counts: EngineCounts,
    ) -> None:
        self.role = role
        self.settings = settings
        self.arguments = arguments
        self.creator = creator
        self.counts = counts
        self.isolation_level: str | None = ""
        self.prepared = False

    def pragmas(self) -> Mapping[str, Any]:
        """Return the PRAGMAs of a connection in the engine's role."""
        pragmas = self.settings.pragmas
        if self.role is Role.READER:
            return {k: v for k, v in pragmas.items() if k not in _WRITER_PRAGMAS}
        return pragmas

    def policy(self, site: Site) -> PlacementPolicy:
        """Return the policy of a new connection to a file at ``site``."""
        return PlacementPolicy(
            self._placement(site), Authorizer(), self.arguments.cached_statements, self.counts
        )

    def _placement(self, site: Site) -> Placement:
        placement = self.settings.placement
        # A remote server may delay any statement, and so may a converter of the application.
        unknown = site.unreliable or self.arguments.convert
        return Placement.THREAD if placement is Placement.AUTO and unknown else placement


@final
class SetUp:
    """The set-up of one connection, called in its thread as many times as necessary.

    ``done`` is True once it has succeeded; ``own``, if the connection was opened with the
    connector's arguments; ``read_only``, if SQLite itself was to open the file read-only.
    """

    def __init__(
        self,
        shared: SetUps,
        location: Location,
        site: Site,
        keeper: Keeper | None,
        *,
        own: bool,
        read_only: bool,
    ) -> None:
        self.policy = shared.policy(site)
        self.own = own
        self.done = False
        self._shared = shared
        self._location = location
        self._site = site
        self._keeper = keeper
        self._read_only = read_only
        self._begun = False

    @property
    def reads_first(self) -> bool:
        """True if it is unknown whether the database is ready for readers."""
        return (
            self.own and self._read_only and self._location.writable and not self._shared.prepared
        )

    def __call__(self, connection: sqlite3.Connection) -> None:
        if not self._begun:
            self._begun = True
            dbapi.learn(connection)
            if not self.own:
                keep_main_greenlet()  # in a thread that was started elsewhere
            self._shared.isolation_level = take_isolation_level(connection)
            if (timeout := self._timeout_asked(connection)) is not None:
                self.policy.settings.note_busy_timeout(timeout)
        self._set_up(connection)
        self.done = True

    def _timeout_asked(self, connection: sqlite3.Connection) -> float | None:
        """Return the application's busy timeout, in seconds; None if it has not set one."""
        arguments = self._shared.arguments
        if self._as_opened_here(connection):
            return arguments.timeout
        milliseconds = ask(connection, "busy_timeout")
        if self.own:  # opened without one, but in a class that may set one
            return milliseconds / 1000 if milliseconds else arguments.timeout
        return None if milliseconds == _DEFAULT_BUSY_TIMEOUT else milliseconds / 1000

    def _as_opened_here(self, connection: sqlite3.Connection) -> bool:
        """Return whether no code of the application (a creator or a class) has set anything."""
        return self.own and type(connection) is self._shared.arguments.own_class

    def at_once(self, connection: sqlite3.Connection) -> None:
        """Try once, in the hop that opens the connection; the next attempt raises any error."""
        with contextlib.suppress(Exception):
            self(connection)

    def _set_up(self, connection: sqlite3.Connection) -> None:
        shared, reads_first = self._shared, self.reads_first
        if not self.own:
            self._check_same_file(connection)
        if reads_first and not is_prepared(connection, shared.settings.pragmas):
            raise NotPrepared
        pragmas = shared.pragmas()
        if is_private(self._location.path):  # in memory, for the application: no disk to wait for
            connection.execute("PRAGMA synchronous = OFF")
            pragmas = {**pragmas, "synchronous": "OFF"}
        here = self._as_opened_here(connection)
        defaults = frozenset() if here else shared.settings.pragmas_by_default
        switched = configure(
            connection,
            self._location,
            pragmas,
            exclusively=self._site.unreliable,
            defaults=defaults,
        )
        if self._keeper is not None:
            self._leave_to(self._keeper, connection, new=switched)
        if here:
            self.policy.is_new(connection)
        install_authorizer(connection, self.policy.authorizer)
        shared.prepared = shared.prepared or reads_first

    def _check_same_file(self, connection: sqlite3.Connection) -> None:
        path = file_of(connection)
        if (None if path is None else os.path.realpath(path)) != self._location.file:
            raise ConfigurationError(
                f"{self._shared.creator!r}, or a do_connect listener, opened {path or ':memory:'} "
                f"now and {self._location.label} before; this pool is for one database, whose "
                "file has one turn: create an engine for each database"
            )

    def _leave_to(self, keeper: Keeper, connection: sqlite3.Connection, *, new: bool) -> None:
        """Leave checkpoints to the keeper of the log."""
        if keeper.keeps and "wal_autocheckpoint" not in self._shared.settings.pragmas:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
        if new:
            connection.execute("PRAGMA schema_version").fetchone()  # the first read creates the log
        keeper.connection_opened()

    # -- finally, in a separate hop that a cancellation can stop ----------------------------------

    @property
    def is_incomplete(self) -> bool:
        """True if :meth:`complete` has something to do."""
        return self._shared.settings.on_connect is not None or self._must_be_made_read_only

    @property
    def _must_be_made_read_only(self) -> bool:
        return self._shared.role is Role.READER and not self._read_only

    def complete(self, connection: sqlite3.Connection) -> None:
        """Call ``on_connect``; make a reader that SQLite has opened for writing read-only."""
        policy, on_connect = self.policy, self._shared.settings.on_connect
        if on_connect is not None:
            policy.functions_may_have_changed()
            on_connect(connection)
            if connection.in_transaction:
                connection.execute("COMMIT")
            policy.settings.switch_off_waiting(connection)
        if self._must_be_made_read_only:
            policy.settings.set_read_only(connection, True)
