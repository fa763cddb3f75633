"""How a connection is opened: arguments, PRAGMAs, the switch to WAL, functions, the authorizer.

SQLAlchemy's dialect opens the aiosqlite connection itself, so that ``do_connect`` listeners,
``async_creator`` and ``connect_args`` of the application work as they do without this package. The
package changes the arguments before, and sets the connection up in its thread afterwards.

A write turn belongs to a file, so the file must be known before a connection is used. A creator of
the application does not name it, and a listener may open another. In both cases the first
connection is opened early, and SQLite is asked for the file (:meth:`Connector.find_file`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import weakref
from collections.abc import Awaitable, Callable, Mapping, MutableSequence
from functools import cached_property
from typing import Any, final

import aiosqlite
from sqlalchemy import event
from sqlalchemy.util import await_only

from ..compat.main_greenlets import keep_main_greenlet
from ..errors import ConfigurationError, DatabaseNotUsableError
from ..execution.connection_thread import (
    ConnectionThread,
    inherited_files,
    open_connection,
)
from ..execution.counts import EngineCounts
from ..execution.shared_thread import SharedThread
from ..files.location import Location
from ..files.private_directory import PrivateDirectory
from ..files.site import Site
from ..settings import ConnectionSettings, Placement, Role
from ..sqlite.authorizer import Authorizer
from ..sqlite.configuring import NotPrepared, configure, file_of, is_prepared
from ..sqlite.driver_errors import dbapi
from ..sqlite.isolation import take_isolation_level
from ..sqlite.shared_hooks import install_authorizer
from ..transactions.locks import is_lock, keep_trying
from ..transactions.placement import PlacementPolicy
from ..transactions.rules import Log, Rules
from .creator import Arguments, Creator, Opened
from .executor import Executor

# PRAGMAs of the file or the writer; a reader neither needs nor may set them.
_WRITER_PRAGMAS = frozenset(
    {"auto_vacuum", "journal_mode", "journal_size_limit", "page_size", "wal_autocheckpoint"}
)


@final
class Connector:
    """Opens the connections of one engine. It outlives the pool, which ``dispose()`` replaces.

    ``isolation_level`` is the level of the connection opened last; None is autocommit.
    ``knows_file`` says that ``location`` is the file in use; until then, call :meth:`find_file`.
    """

    def __init__(
        self, role: Role, settings: ConnectionSettings, creator: Callable[..., Any]
    ) -> None:
        self.role = role
        self.settings = settings
        self.shared_thread = SharedThread()
        self.counts = EngineCounts()
        self.isolation_level: str | None = ""
        self.knows_file = False
        self.refusal: Callable[[], Exception] | None = None  # raised instead of a checkout
        self._arguments = Arguments()
        self._creator = Creator(creator)
        self._dialect: Any = None
        self._database: object = None  # the name that this object told the dialect to open
        # What was opened by that name, and its set-up if that was tried already.
        self._own: weakref.WeakKeyDictionary[aiosqlite.Connection, _SetUp | None] = (
            weakref.WeakKeyDictionary()
        )
        self._rules: Rules | None = None  # of the pool, while it opens a connection
        self._opens_itself = self._creator.by_dialect
        self._private_directory: PrivateDirectory | None = None
        self._prepared = False
        self._probing = False

    # -- before: the location -------------------------------------------------------------------

    @cached_property
    def location(self) -> Location:
        """The location of the database; before :meth:`find_file`, what the URL says.

        A pool is not told the URL. The engine's creator knows it and passes it to ``do_connect``
        listeners, so it is called once for the argument alone.
        """
        if self._creator.by_dialect and self._creator.early is None:
            self._probing = True
            try:
                # Only a listener of all engines runs before this one's, and may open a connection.
                self._creator.open_early()
            except _Found as found:
                return found.location
            finally:
                self._probing = False
        return self._unnamed

    @property
    def _unnamed(self) -> Location:
        return Location(None, f"of {self._creator!r}")

    def find_file(self) -> None:
        """Learn which file the engine opens, from SQLite if nothing else tells.

        Call in a greenlet, by one task at a time. The next :meth:`open` returns what it opens.
        """
        declared, creator = self.location, self._creator
        alone = creator.by_dialect and len(self._dialect.dispatch.do_connect) == 1
        if creator.early is not None or not alone:
            _check_not_inherited(declared)
            early = creator.open_early()
            if early.raw not in self._own:
                self._opens_itself = False
                self._found(self._ask_for_file(early), declared)
                self._check_early()
        self.knows_file = True

    def _ask_for_file(self, early: Opened) -> str | None:
        try:
            return early.ask_for_file(self.shared_thread)
        except BaseException:
            self.dispose()
            raise

    def _check_early(self) -> None:
        try:
            _check_not_inherited(self.location)
        except DatabaseNotUsableError:
            self.dispose()
            raise

    def _found(self, path: str | None, declared: Location) -> None:
        found = self._unnamed if path is None else Location(path)
        if found.file != declared.file:
            self.location = found
            self.__dict__.pop("site", None)

    def dispose(self) -> None:
        """Close the connection that was opened early, if it was not used.

        The next pool looks the real path up again: a link may lead to another file by then.
        """
        if isinstance(location := vars(self).get("location"), Location):
            self.location = location.looked_up_again()
        if early := self._creator.take_early(None):
            early.give_up(self.shared_thread)

    @cached_property
    def site(self) -> Site:
        """The file system of the database."""
        return Site(self.location, self._journal_mode)

    @property
    def _journal_mode(self) -> str:
        return str(self.settings.pragmas.get("journal_mode", "WAL"))

    @property
    def has_log(self) -> bool:
        """True if there is a write-ahead log, in a file that this process may write.

        False as long as it is unknown whether the file can have one.
        """
        if not (self.knows_file and self._opens_itself):
            return False  # the keeper opens the file as well, and could not open it the same way
        wal = self.settings.pragmas.get("journal_mode") == "WAL"
        return wal and self._writes_file and self.site.inspected

    @property
    def has_rollback_journal(self) -> bool:
        """True if readers and writers block one another."""
        return self._journal_mode != "WAL"

    @property
    def shares_turn(self) -> bool:
        """True if other processes may write to the same file, and wait in line."""
        return self._writes_file and self.settings.file_turn

    @property
    def _writes_file(self) -> bool:
        return self.location.path is not None and self.location.writable

    async def inspect_site(self) -> None:
        """Refuse, before anything is touched, a place where the database cannot be used."""
        await self.site.inspect(self._seconds)

    @property
    def in_memory(self) -> bool:
        """True for a database in memory, which is gone with its last connection."""
        return self.location.path is None

    # -- opening: SQLAlchemy's do_connect event --------------------------------------------------

    def listen(self, dialect: Any) -> None:
        """Have the dialect open connections with the arguments of this package."""
        self._dialect = dialect
        event.listen(dialect, "do_connect", self.on_do_connect)

    def open(self, record: Any, rules: Rules) -> Opened:
        """Return what the dialect or the application's creator opens. Needs a greenlet."""
        if early := self._creator.take_early(record):
            return early
        _check_not_inherited(self.location)
        self._rules = rules
        try:
            return self._creator.open(record)
        finally:
            # Compiled statements keep the dialect, and so this object, for as long as their tables.
            self._rules = None

    def on_do_connect(
        self, dialect: Any, record: Any, args: MutableSequence[Any], parameters: dict[str, Any]
    ) -> None:
        """Put this package's values into the arguments of ``sqlite3.connect``."""
        if self._probing:
            raise _Found(self._locate(str(args[0]), uri=bool(parameters.get("uri"))))
        location = self.location
        location.check()
        _check_not_inherited(location)
        if self.role is Role.READER and location.path is not None:
            if not self._prepared and (self.site.doubtful or not location.has_pages()):
                await_only(self._prepare())  # a reader could not even open it
            location = location.with_parameter("mode", "ro")
        if location.path is not None:
            args[0], parameters["uri"] = location.sqlite_uri, True
        self._database = args[0]
        parameters.setdefault("async_creator_fn", self._connect)  # of SQLAlchemy's dialect

    async def _connect(self, *arguments: Any, **parameters: Any) -> aiosqlite.Connection:
        """Call ``aiosqlite.connect()`` with the arguments as all listeners have left them."""
        self._arguments.complete(parameters, self.location, self.settings)
        if arguments[:1] != (self._database,):
            return await open_connection(arguments, parameters)
        set_up = self._set_up_own()
        connection = await open_connection(arguments, parameters, set_up and set_up.at_once)
        self._own[connection] = set_up
        return connection

    def _locate(self, database: str, *, uri: bool) -> Location:
        """Return the location; a private database in memory becomes a temporary file.

        Each connection to ``:memory:`` would see an empty database of its own, and SQLite has no
        WAL in memory. A file in a private temporary directory, which is removed with the engine,
        behaves like every other file.
        """
        location = Location.parse(database, uri=uri)
        if not location.private:
            return location
        if self.role is not Role.AUTO:
            raise ConfigurationError(
                "a private in-memory database cannot be shared by two engines; use "
                'SQLiteDatabase(":memory:"), SQLitePool, or the path of a file'
            )
        if self._private_directory is None:
            self._private_directory = PrivateDirectory(self)
        return Location(self._private_directory.database)

    async def _prepare(self) -> None:
        """Create the database that readers open, in the right journal mode, if need be.

        ``mode=ro`` creates no file and cannot switch the mode, and a reader may come first.
        """
        location, pragmas, alone = self.location, self.settings.pragmas, self.site.doubtful

        def set_up(connection: sqlite3.Connection) -> None:
            configure(connection, location, pragmas, alone=alone)

        if location.writable:
            worker = await ConnectionThread.open(location.sqlite_uri, location.file)
            try:
                await self._try(lambda: worker.run(set_up))
            finally:
                await worker.close()
        self._prepared = True

    # -- after: the set-up in the connection's thread -------------------------------------------

    async def finish(self, opened: Opened, rules: Rules) -> Executor:
        """Set up the connection that :meth:`open` has returned, as far as that is left to do."""
        worker, own = self._worker_of(opened)
        set_up = self._own.get(opened.raw) or _SetUp(self, self._policy(), rules.log, own=own)
        if own:
            self._own[opened.raw] = None
        try:
            await self._set_up(worker, set_up)
            if self.settings.on_connect is not None or self._must_be_made_read_only:
                await worker.run(lambda connection: self._complete(connection, set_up.policy))
        except asyncio.CancelledError:
            worker.give_up("it was never opened", keep=False, done=lambda _: None)
            raise
        except BaseException:
            await worker.close()
            raise
        return Executor(worker, set_up.policy, rules)

    def _worker_of(self, opened: Opened) -> tuple[ConnectionThread, bool]:
        """Return its thread, and whether it was opened with this object's arguments."""
        own = opened.raw in self._own
        worker = opened.worker or ConnectionThread(
            opened.raw, threadsafe=own, shared=self.shared_thread
        )
        worker.belongs_to(self.location.file)
        self.shared_thread.note_connection()
        return worker, own

    def _policy(self) -> PlacementPolicy:
        return PlacementPolicy(
            self._placement, Authorizer(), self._arguments.cached_statements, self.counts
        )

    def _set_up_own(self) -> _SetUp | None:
        """Return the set-up of a connection that is opened now; None before the rules are known."""
        if self._rules is None:
            return None
        return _SetUp(self, self._policy(), self._rules.log, own=True)

    async def _set_up(self, worker: ConnectionThread, set_up: _SetUp) -> None:
        """Set a connection up, unless that was done when it was opened."""
        if not set_up.done and self.reads_first(own=set_up.own):
            try:
                await worker.run(set_up)
            except dbapi.failures(NotPrepared):
                await self._prepare()  # or raise what is wrong
        if not set_up.done:
            await self._try(lambda: worker.run(set_up))

    def set_up_in_thread(
        self, connection: sqlite3.Connection, policy: PlacementPolicy, log: Log | None, *, own: bool
    ) -> None:
        """Set a connection up, in its thread. It may be called again after an error."""
        reads_first = self.reads_first(own=own)
        if not own:
            self._check_same_file(connection)
        if reads_first and not is_prepared(connection, self.settings.pragmas):
            raise NotPrepared
        alone = self.site.doubtful
        switched = configure(connection, self.location, self._pragmas(), alone=alone)
        if log is not None:
            self._leave_to(log, connection, new=switched)
        if own and type(connection) is self._arguments.own_class:
            policy.is_new(connection)
        install_authorizer(connection, policy.authorizer)
        self._prepared = self._prepared or reads_first

    def reads_first(self, *, own: bool) -> bool:
        """Return whether it is unknown if the database is as readers need it."""
        return own and self.opens_read_only and self.location.writable and not self._prepared

    async def _try(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Wait for locks: of a recovery, or of the close of another process's last connection.

        Or of other starting processes, which switch to WAL.
        """
        try:
            await keep_trying(attempt, self._seconds)
        except dbapi.OperationalError as error:
            if not is_lock(error):
                raise
            raise self._locked_out(error) from error

    def _check_same_file(self, connection: sqlite3.Connection) -> None:
        path = file_of(connection)
        if (None if path is None else os.path.realpath(path)) != self.location.file:
            raise ConfigurationError(
                f"{self._creator!r}, or a do_connect listener, has opened {path or ':memory:'}, "
                f"and {self.location.label} before; this pool is for one database, whose file has "
                "one turn: make an engine for each"
            )

    @property
    def _seconds(self) -> float:
        """The seconds that opening waits for locks."""
        reads = self.role is Role.READER
        return self.settings.read_timeout if reads else self.settings.write_timeout

    def _locked_out(self, error: sqlite3.Error) -> DatabaseNotUsableError:
        return DatabaseNotUsableError(
            f"waited {self._seconds:.2f} s to open {self.location.label} with "
            f"journal_mode={self._journal_mode} ({error}): another connection holds SQLite's lock, "
            "or has the file open in another journal mode; end its transaction, give all engines "
            "on the file the same journal_mode, or raise write_timeout or read_timeout"
        )

    def _pragmas(self) -> Mapping[str, Any]:
        pragmas = self.settings.pragmas
        if self.role is Role.READER:
            return {k: v for k, v in pragmas.items() if k not in _WRITER_PRAGMAS}
        return pragmas

    @property
    def _placement(self) -> Placement:
        placement = self.settings.placement
        # A remote server may delay any statement, and so may a converter of the application.
        unknown = self.site.doubtful or self._arguments.convert
        return Placement.THREAD if placement is Placement.AUTO and unknown else placement

    @property
    def opens_read_only(self) -> bool:
        """True if SQLite itself opens the file read-only."""
        return self.role is Role.READER and self._opens_itself and self.location.path is not None

    @property
    def _must_be_made_read_only(self) -> bool:
        return self.role is Role.READER and not self.opens_read_only

    def _leave_to(self, log: Log, connection: sqlite3.Connection, *, new: bool) -> None:
        """Leave checkpoints to the keeper of the log."""
        if log.keeps and "wal_autocheckpoint" not in self.settings.pragmas:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
        if new:
            connection.execute("PRAGMA schema_version").fetchone()  # the first read creates it
        log.found()

    def _complete(self, connection: sqlite3.Connection, policy: PlacementPolicy) -> None:
        if self.settings.on_connect is not None:
            policy.functions_may_have_changed()
            self.settings.on_connect(connection)
            if connection.in_transaction:
                connection.execute("COMMIT")
            policy.settings.switch_off_waiting(connection)
        if self._must_be_made_read_only:
            policy.settings.set_read_only(connection, True)


@final
class _SetUp:
    """The set-up of one connection, called in its thread in as many tries as it takes.

    ``done`` says that it has succeeded; ``own``, that the connection was opened with the
    connector's arguments.
    """

    def __init__(
        self, connector: Connector, policy: PlacementPolicy, log: Log | None, *, own: bool
    ) -> None:
        self.policy = policy
        self.own = own
        self.done = False
        self._connector = connector
        self._log = log
        self._begun = False

    def __call__(self, connection: sqlite3.Connection) -> None:
        if not self._begun:
            self._begun = True
            dbapi.learn(connection)
            if not self.own:
                keep_main_greenlet()  # in a thread that was started elsewhere
            self._connector.isolation_level = take_isolation_level(connection)
        self._connector.set_up_in_thread(connection, self.policy, self._log, own=self.own)
        self.done = True

    def at_once(self, connection: sqlite3.Connection) -> None:
        """Try once, in the hop that opens the connection; the next try raises what is wrong."""
        with contextlib.suppress(Exception):
            self(connection)


class _Found(Exception):  # noqa: N818 - no error: the answer of a probe
    def __init__(self, location: Location) -> None:
        super().__init__(location)
        self.location = location


def _check_not_inherited(location: Location) -> None:
    if location.file in inherited_files:
        raise DatabaseNotUsableError(
            f"{location.label} cannot be opened in process {os.getpid()}: it was forked while a "
            "connection to that file was in use, and SQLite's locks do not work in such a process; "
            "fork when no session or connection is open, or start processes by the spawn method"
        )
