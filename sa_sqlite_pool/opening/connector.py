"""How a connection is opened: where the database is, with which arguments, and how it is retried.

SQLAlchemy's dialect opens the aiosqlite connection itself, so that the application's ``do_connect``
listeners, ``async_creator`` and ``connect_args`` work as they do without this package. The package
changes the arguments beforehand, and sets the connection up in its thread afterwards.

A write turn belongs to a file, so the file must be known before a connection is used. A creator of
the application does not name the file, and a listener may open a different one. In both cases, the
first connection is opened early, and SQLite is asked for the file (:meth:`Connector.find_file`).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import weakref
from collections.abc import Awaitable, Callable, MutableSequence
from functools import cached_property
from typing import Any, final

import aiosqlite
from sqlalchemy import event
from sqlalchemy.util import await_only

from ..driver.executor import Executor
from ..errors import ConfigurationError, DatabaseNotUsableError
from ..execution.connection_thread import (
    ConnectionThread,
    inherited_files,
    open_connection,
)
from ..execution.shared_thread import SharedThread
from ..files.location import Location
from ..files.open_files import open_files
from ..files.private_directory import PrivateDirectory
from ..files.site import Site
from ..mutex import new_lock
from ..settings import ConnectionSettings, Role
from ..slow_statements import SlowStatements
from ..sqlite.configuring import NotPrepared, configure
from ..sqlite.driver_errors import dbapi
from ..stats.counts import EngineCounts
from ..system.forks import renew_after_fork
from ..transactions.locks import is_lock, keep_trying
from ..transactions.rules import Rules
from ..turn.waits import WaitWatch
from .creator import Arguments, Creator, Opened, is_probe
from .set_up import SetUp, SetUps


@final
class Connector:
    """Opens the connections of one engine. It outlives the pool, which ``dispose()`` replaces.

    ``knows_file`` is True once ``location`` is the file in use; until then, call :meth:`find_file`.
    """

    def __init__(
        self, role: Role, settings: ConnectionSettings, creator: Callable[..., Any]
    ) -> None:
        self.role = role
        self.settings = settings
        self.shared_thread = SharedThread()
        self.counts = EngineCounts()
        self.wait_watch = WaitWatch(settings.slow_wait_warning)
        self.slow_statements = SlowStatements(settings.slow_statement_warning)
        self.knows_file = False
        self.keeps_log = False  # connections are left open at exit
        self.refusal: Callable[[], Exception] | None = None  # raised instead of a checkout
        self._arguments = Arguments()
        self._creator = Creator(creator)
        self._set_ups = SetUps(role, settings, self._arguments, self._creator, self.counts)
        self._dialect: Any = None
        self._database: object = None  # the name that this object told the dialect to open
        # The connections opened by that name, with the set-up if it has been tried already.
        self._own: weakref.WeakKeyDictionary[aiosqlite.Connection, SetUp | None] = (
            weakref.WeakKeyDictionary()
        )
        self._rules: Rules | None = None  # of the pool, while it opens a connection
        self._opens_itself = self._creator.by_dialect
        self._location: Location | None = None
        self._private_directory: PrivateDirectory | None = None
        self.shared_directory: PrivateDirectory | None = None  # that of a facade, only kept
        # Those that dispose() has left, and that are still in use.
        self.left: list[PrivateDirectory] = []
        self.renew_in_child()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        self._mutex = new_lock()  # protects the location and the private directory

    # -- before: the location -------------------------------------------------------------------

    @property
    def location(self) -> Location:
        """The location of the database; before :meth:`find_file`, the location in the URL.

        A pool does not receive the URL. The engine's creator knows it and passes it to
        ``do_connect`` listeners, so the creator is called for that argument alone, until one of
        several threads that do so has stored it.
        """
        while (location := self._location) is None:
            asked, directory = self._ask_for_location()
            with self._mutex:  # dispose() may have left the directory meanwhile
                if self._location is None and directory in {None, self._private_directory}:
                    self._location = asked
        return location

    @property
    def known_location(self) -> Location | None:
        """The same, None if finding it out might open a connection."""
        return self._location

    def _ask_for_location(self) -> tuple[Location, PrivateDirectory | None]:
        """Return the location, and its directory if it takes the place of one in memory."""
        if self._creator.by_dialect and self._creator.early is None:
            try:
                # Only a listener for all engines runs before this one, and may open a connection.
                self._creator.open_early(probing=True)
            except _Found as found:
                return found.location, found.directory
        return self._unnamed, None

    @property
    def _unnamed(self) -> Location:
        return Location(None, f"of {self._creator!r}")

    def find_file(self) -> None:
        """Find out which file the engine opens, from SQLite if there is no other way.

        Call this in a greenlet, one task at a time. The next :meth:`open` returns what this opens.
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
            self.move_to(found)

    def dispose(self) -> None:
        """Close the connection that was opened early, if it was not used.

        The next pool looks up the real path again: a link may point to another file by then.
        """
        with self._mutex:
            if self._location is not None and self._private_directory is None:
                self._location = self._location.looked_up_again()
        if early := self._creator.take_early(None):
            early.give_up(self.shared_thread)

    def move_to(self, location: Location) -> None:
        """Open another file from now on than the URL says."""
        self._location = location
        vars(self).pop("site", None)

    def leave_private_directory(self) -> None:
        """Leave the directory of the database in memory, if it has one, to :attr:`left`.

        The next connection creates a new one, as after the last close of an in-memory database.
        """
        with self._mutex:
            directory, location = self._private_directory, self._location
            if directory is None or location is None or location.path != directory.database:
                return
            self.left.append(directory)
            self._private_directory = self._location = None
            vars(self).pop("site", None)

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
            return False  # the keeper opens the file, too, and could not do so in the same way
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
        """Refuse a place where the database cannot be used, before anything is touched."""
        while True:
            location = self.location
            if self.site.location != location:  # another thread has left that place meanwhile
                vars(self).pop("site", None)
            try:
                return await self.site.inspect(self._seconds)
            except DatabaseNotUsableError:
                if self.location == location:
                    raise

    @property
    def isolation_level(self) -> str | None:
        """The level of the connection opened last; None means autocommit."""
        return self._set_ups.isolation_level

    @property
    def in_memory(self) -> bool:
        """True for an in-memory database, which ends with its last connection."""
        return self.location.path is None

    # -- opening: SQLAlchemy's do_connect event --------------------------------------------------

    def listen(self, dialect: Any) -> None:
        """Make the dialect open connections with the arguments of this package."""
        self._dialect = dialect
        event.listen(dialect, "do_connect", self.on_do_connect)

    def open(self, record: Any, rules: Rules) -> Opened:
        """Return a connection opened by the dialect or the application's creator, in a greenlet."""
        if early := self._creator.take_early(record):
            return early
        _check_not_inherited(self.location)
        self._rules = rules
        try:
            return self._creator.open(record)
        finally:
            # Compiled statements keep the dialect, and this object, as long as their tables live.
            self._rules = None

    def on_do_connect(
        self, dialect: Any, record: Any, args: MutableSequence[Any], parameters: dict[str, Any]
    ) -> None:
        """Put this package's values into the arguments of ``sqlite3.connect``."""
        if is_probe(record):
            raise self._locate(str(args[0]), uri=bool(parameters.get("uri")))
        location = self.location
        location.check()
        _check_not_inherited(location)
        if self.role is Role.READER and location.path is not None:
            if not self._set_ups.prepared and (self.site.unreliable or not location.has_pages()):
                await_only(self._prepare())  # otherwise, a reader could not even open it
            location = location.with_parameter("mode", "ro")
        if location.path is not None:
            args[0], parameters["uri"] = location.sqlite_uri, True
        self._database = args[0]
        parameters.setdefault("async_creator_fn", self._connect)  # for SQLAlchemy's dialect

    async def _connect(self, *arguments: Any, **parameters: Any) -> aiosqlite.Connection:
        """Call ``aiosqlite.connect()`` with the arguments as all listeners have left them."""
        self._arguments.complete(parameters, self.location, self.settings)
        if arguments[:1] != (self._database,):
            return await open_connection(arguments, parameters)
        # Without the rules of a pool, the connection is opened early.
        set_up = None if self._rules is None else self._new_set_up(self._rules, own=True)
        connection = await open_connection(arguments, parameters, set_up and set_up.at_once)
        self._own[connection] = set_up
        return connection

    def _locate(self, database: str, *, uri: bool) -> _Found:
        """Find the location; a private in-memory database becomes a temporary file.

        Each connection to ``:memory:`` would see its own empty database, and SQLite has no WAL in
        memory. A file in a private temporary directory, which is removed with the engine or its
        pool, behaves like any other file.
        """
        location = Location.parse(database, uri=uri)
        if not location.private:
            return _Found(location)
        if self.role is not Role.AUTO:
            raise ConfigurationError(
                "a private in-memory database cannot be shared by two engines; use "
                'SQLiteDatabase(":memory:"), SQLitePool, or the path of a file'
            )
        with self._mutex:
            directory = self._private_directory = self._private_directory or PrivateDirectory()
        return _Found(Location(directory.database), directory)

    async def _prepare(self) -> None:
        """Create the database that readers open, in the right journal mode, if necessary.

        ``mode=ro`` creates no file and cannot switch the mode, and a reader may be opened first.
        """
        location, pragmas, unreliable = self.location, self.settings.pragmas, self.site.unreliable

        def set_up(connection: sqlite3.Connection) -> None:
            configure(connection, location, pragmas, exclusively=unreliable)

        if location.writable:
            worker = await ConnectionThread.open(location.sqlite_uri, location.file)
            try:
                await self._try(lambda: worker.run(set_up))
            finally:
                await worker.close()
        self._set_ups.prepared = True

    # -- after: the set-up in the connection's thread -------------------------------------------

    async def finish(self, opened: Opened, rules: Rules) -> Executor:
        """Complete the set-up of the connection that :meth:`open` has returned."""
        worker, own = self._worker_of(opened)
        set_up = self._own.get(opened.raw) or self._new_set_up(rules, own=own)
        if own:
            self._own[opened.raw] = None
        try:
            try:
                await self._set_up(worker, set_up)
            except Exception:
                _assert_not_lost(rules.file)
                raise
            _assert_not_lost(rules.file)
            if rules.file is not None and not self.site.unreliable:
                open_files.hold(rules.file)
            if set_up.is_incomplete:
                await worker.run(set_up.complete)
        except asyncio.CancelledError:
            worker.give_up("it was never opened", keep=False, done=lambda _: None)
            raise
        except BaseException:
            await worker.close()
            raise
        return Executor(worker, set_up.policy, rules)

    def _worker_of(self, opened: Opened) -> tuple[ConnectionThread, bool]:
        """Return a connection's thread, and whether it was opened with this object's arguments."""
        own = opened.raw in self._own
        worker = opened.worker or ConnectionThread(
            opened.raw, threadsafe=own, shared=self.shared_thread
        )
        worker.belongs_to(self.location.file)
        self.shared_thread.note_connection()
        return worker, own

    def _new_set_up(self, rules: Rules, *, own: bool) -> SetUp:
        return SetUp(
            self._set_ups,
            self.location,
            self.site,
            rules.keeper,
            own=own,
            read_only=self.opens_read_only,
        )

    async def _set_up(self, worker: ConnectionThread, set_up: SetUp) -> None:
        """Set up a connection, unless that was done when it was opened."""
        if not set_up.done and set_up.reads_first:
            try:
                await worker.run(set_up)
            except dbapi.failures(NotPrepared):
                await self._prepare()  # or raise the error
        if not set_up.done:
            await self._try(lambda: worker.run(set_up))

    async def _try(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Wait for locks: of a recovery, or of another process that closes its last connection.

        Or of other processes that are starting, and switch to WAL.
        """
        try:
            await keep_trying(attempt, self._seconds)
        except dbapi.OperationalError as error:
            if not is_lock(error):
                raise
            raise self._locked_out(error) from error

    @property
    def _seconds(self) -> float:
        """The number of seconds that opening waits for locks."""
        reads = self.role is Role.READER
        return self.settings.read_timeout if reads else self.settings.write_timeout

    def _locked_out(self, error: sqlite3.Error) -> DatabaseNotUsableError:
        return DatabaseNotUsableError(
            f"waited {self._seconds:.2f} s to open {self.location.label} with "
            f"journal_mode={self._journal_mode} ({error}): another connection holds SQLite's lock, "
            "or has the file open in another journal mode; end its transaction, give all engines "
            "on the file the same journal_mode, or raise write_timeout or read_timeout"
        )

    @property
    def opens_read_only(self) -> bool:
        """True if SQLite itself opens the file read-only."""
        return self.role is Role.READER and self._opens_itself and self.location.path is not None


class _Found(Exception):  # noqa: N818 - no error: the answer of a probe
    def __init__(self, location: Location, directory: PrivateDirectory | None = None) -> None:
        super().__init__(location)
        self.location = location
        self.directory = directory


def _assert_not_lost(file: str | None) -> None:
    """Raise an error if ``file`` or its log was replaced between the pool's check and its opening.

    The new connection then reads another log by the index of the old one, as "file is not a
    database", for example.
    """
    if file is not None:
        open_files.assert_may_open(file)


def _check_not_inherited(location: Location) -> None:
    if location.file in inherited_files:
        raise DatabaseNotUsableError(
            f"{location.label} cannot be opened in process {os.getpid()}: the process was forked "
            "while a connection to that file was in use, and SQLite's locks do not work in such a "
            "process; fork when no session or connection is open, or start processes with the "
            "spawn method"
        )
