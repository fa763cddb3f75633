"""How a connection is opened: arguments, pragmas, the switch to WAL, functions, the guard.

SQLAlchemy's dialect opens the aiosqlite connection itself, so that ``do_connect`` listeners,
``async_creator`` and ``connect_args`` of the application work as they do without this package.
What the package needs is put into the arguments before, and set up in the thread afterwards.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
import sqlite3
import tempfile
import weakref
from collections.abc import Callable, Mapping, MutableSequence
from functools import cached_property
from pathlib import Path
from typing import Any, final

from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.util import await_only

from ..errors import ConfigurationError, DatabaseNotUsableError, NotADatabaseError
from ..settings import DEFAULT_CACHED_STATEMENTS, ConnectionSettings, Placement, Role
from .executor import Executor
from .guard import Access, Guard
from .lane import Lane
from .location import Location
from .locks import is_lock, keep_trying
from .placement import Placing
from .rules import Log, Rules
from .site import Site
from .worker import Worker, inherited_files, open_connection

# Set on the file or for the writer; a reader neither needs nor may set them.
_WRITER_PRAGMAS = frozenset(
    {"auto_vacuum", "journal_mode", "journal_size_limit", "page_size", "wal_autocheckpoint"}
)
_BEFORE_JOURNAL_MODE = ("page_size", "auto_vacuum")  # without effect on a file that has pages


@final
class Opening:
    """Opens the connections of one engine. It outlives the pool, which ``dispose()`` replaces."""

    def __init__(
        self, role: Role, settings: ConnectionSettings, creator: Callable[..., Any]
    ) -> None:
        self.role = role
        self.settings = settings
        self.lane = Lane()
        self._cached_statements = DEFAULT_CACHED_STATEMENTS
        self._converts = False
        self.refusal: Callable[[], Exception] | None = None  # raised instead of a checkout
        self._creator = creator
        self._private_directory: PrivateDirectory | None = None
        self._prepared = False
        self._probing = False

    # -- before: SQLAlchemy's do_connect event ---------------------------------------------------

    @cached_property
    def by_dialect(self) -> bool:
        """Whether SQLAlchemy's dialect opens the connections, not a creator of the application."""
        # The engine's own creator is known by its one argument; QueuePool looks at the same.
        return list(inspect.signature(self._creator).parameters) == ["connection_record"]

    @cached_property
    def location(self) -> Location:
        """Where the database is, before any connection is opened.

        A pool is not told the URL. The engine's creator knows it and passes it to ``do_connect``
        listeners, so it is called once for the argument alone.
        """
        if not self.by_dialect:
            return Location(None, f"of {self._creator!r}")
        self._probing = True
        try:
            self._creator(None)
        except _Found as found:
            return found.location
        finally:
            self._probing = False
        raise ConfigurationError("a do_connect listener opens the connections before this pool")

    @cached_property
    def site(self) -> Site:
        """The file system it is on."""
        return Site(self.location, self._journal_mode)

    @property
    def _journal_mode(self) -> str:
        return str(self.settings.pragmas.get("journal_mode", "WAL"))

    @property
    def has_log(self) -> bool:
        """Whether there is a write-ahead log, in a file that this process may write.

        False as long as it is not known whether that can be.
        """
        wal = self.settings.pragmas.get("journal_mode") == "WAL"
        return wal and self._writes_file and self.site.inspected

    @property
    def has_rollback_journal(self) -> bool:
        """Whether readers and writers keep each other waiting."""
        return self._journal_mode != "WAL"

    @property
    def shares_turn(self) -> bool:
        """Whether other processes may write to the same file, and line up."""
        return self._writes_file and self.settings.file_turn

    @property
    def _writes_file(self) -> bool:
        return self.by_dialect and self.location.path is not None and self.location.writable

    async def inspect_site(self) -> None:
        """Refuse, before anything is touched, a place where the database cannot be used."""
        await self.site.inspect(self._seconds)

    @property
    def in_memory(self) -> bool:
        """A database in memory that connections share by its name."""
        return self.by_dialect and self.location.path is None

    def on_do_connect(
        self, dialect: Any, record: Any, args: MutableSequence[Any], parameters: dict[str, Any]
    ) -> None:
        """Put into the arguments of ``sqlite3.connect`` what this package needs."""
        if self._probing:
            raise _Found(self._locate(str(args[0]), uri=bool(parameters.get("uri"))))
        location = self.location
        location.check()
        _check_not_inherited(location)
        if self.role is Role.READER and location.path is not None:
            self._prepare_for_readers()
            location = location.with_parameter("mode", "ro")
        if location.path is not None:
            args[0], parameters["uri"] = location.sqlite_uri, True
        if parameters.pop("autocommit", None) is True:
            raise ConfigurationError(
                'connect_args={"autocommit": True} would end every transaction at once; use '
                'isolation_level="AUTOCOMMIT" of create_async_engine or of execution_options'
            )
        parameters["isolation_level"] = None  # transactions are the adapter's business
        parameters["check_same_thread"] = False
        parameters["timeout"] = 0
        parameters.setdefault("async_creator_fn", open_connection)  # of SQLAlchemy's dialect
        parameters.setdefault("cached_statements", DEFAULT_CACHED_STATEMENTS)
        self._cached_statements = int(parameters["cached_statements"])
        self._converts = bool(parameters.get("detect_types"))

    def _locate(self, database: str, *, uri: bool) -> Location:
        """The database; a private one in memory becomes a file of its own.

        Each connection to ``:memory:`` would see an empty database of its own, and SQLite has no
        WAL in memory. A file in a private temporary directory, which goes when the engine goes,
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

    def _prepare_for_readers(self) -> None:
        """See to it that there is a database, in the right journal mode, that readers can open.

        ``mode=ro`` creates no file and cannot switch the mode, and who asks first, a reader or
        the writer, is up to the application.
        """
        if self._prepared or not self.location.writable:
            return
        await_only(self._prepare())
        self._prepared = True

    async def _prepare(self) -> None:
        worker = await Worker.open(self.location.sqlite_uri, self.location.file)
        try:
            await self._configure(worker, self.settings.pragmas)
        finally:
            await worker.close()

    # -- after: in the connection's thread ------------------------------------------------------

    async def finish(self, stock: AdaptedConnection, rules: Rules) -> Executor:
        """Set up the connection that the dialect opened."""
        worker = Worker(
            stock.driver_connection,
            threadsafe=self.by_dialect,
            lane=self.lane,
            file=self.location.file,
        )
        guard = self._guard()
        placing = Placing(self._placement, guard, self._cached_statements)
        try:
            await self._configure(worker, self._pragmas())
            await worker.run(lambda connection: self._complete(connection, guard, rules.log))
        except asyncio.CancelledError:
            worker.give_up("it was never opened", keep=False, done=lambda _: None)
            raise
        except BaseException:
            await worker.close()
            raise
        return Executor(worker, placing, rules)

    async def _configure(self, worker: Worker, pragmas: Mapping[str, Any]) -> None:
        location, alone = self.location, self.site.doubtful

        def configure(connection: sqlite3.Connection) -> None:
            _configure(connection, location, pragmas, alone=alone)

        # The first statements may meet a recovery, the last connection of somebody else closing,
        # or other starters that switch to WAL.
        try:
            await keep_trying(lambda: worker.run(configure), self._seconds)
        except sqlite3.OperationalError as error:
            if not is_lock(error):
                raise
            raise self._locked_out(error) from error

    @property
    def _seconds(self) -> float:
        """How long opening waits for locks."""
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
        # A server far away may keep any statement waiting, and a converter of the application, too.
        unknown = self.site.doubtful or self._converts
        return Placement.THREAD if placement is Placement.AUTO and unknown else placement

    def _guard(self) -> Guard:
        return Guard(Access.READER if self.role is Role.READER else Access.ALL)

    def _complete(self, connection: sqlite3.Connection, guard: Guard, log: Log | None) -> None:
        if log is not None:
            if log.keeps and "wal_autocheckpoint" not in self.settings.pragmas:
                connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute("PRAGMA schema_version").fetchone()  # the first read creates the log
            log.found()
        if self.settings.on_connect is not None:
            self.settings.on_connect(connection)
            if connection.in_transaction:
                connection.execute("COMMIT")
        connection.set_authorizer(guard)


class _Found(Exception):  # noqa: N818 - no error: the answer of a probe
    def __init__(self, location: Location) -> None:
        super().__init__(location)
        self.location = location


class PrivateDirectory:
    """A temporary directory for a database in memory.

    It is removed by :meth:`remove`, or with ``owner``, at the latest when Python exits.
    """

    def __init__(self, owner: object) -> None:
        directory = tempfile.mkdtemp(prefix="sa_sqlite_pool-")
        self.database = str(Path(directory) / "memory.db")
        self.remove = weakref.finalize(owner, _remove, directory, os.getpid())


def _remove(directory: str, owner: int) -> None:
    if os.getpid() == owner:  # and not a child process that is forked from it, and exits
        shutil.rmtree(directory, ignore_errors=True)


def _check_not_inherited(location: Location) -> None:
    if location.file in inherited_files:
        raise DatabaseNotUsableError(
            f"{location.label} cannot be opened in process {os.getpid()}: it was forked while a "
            "connection to that file was in use, and SQLite's locks do not work in such a process; "
            "fork when no session or connection is open, or start processes by the spawn method"
        )


def _configure(
    connection: sqlite3.Connection, location: Location, pragmas: Mapping[str, Any], *, alone: bool
) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA busy_timeout = 0")  # the waiting is done by tasks, in order
    switches = location.writable and "journal_mode" in pragmas
    if switches and alone:
        # A file in WAL mode cannot even be read where memory is not shared, unless "EXCLUSIVE is
        # set prior to the first WAL-mode database access": https://www.sqlite.org/wal.html#noshm
        connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchone()
    _check_is_database(connection, location.label)
    if switches:
        _switch_journal_mode(connection, pragmas, location.label)
    if switches and alone:
        connection.execute("PRAGMA locking_mode = NORMAL").fetchone()
        connection.execute("PRAGMA schema_version").fetchone()  # lets go of the lock
    _set_pragmas(connection, pragmas, location.label)


def _check_is_database(connection: sqlite3.Connection, label: str) -> None:
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        raise NotADatabaseError(
            f"{label} is not an SQLite database ({error}); it was not changed. Check the path, or "
            "restore the file from a backup"
        ) from error


def _switch_journal_mode(
    connection: sqlite3.Connection, pragmas: Mapping[str, Any], label: str
) -> None:
    wanted = str(pragmas["journal_mode"]).lower()
    mode = _journal_mode(connection)
    if mode in {wanted, "memory"}:
        return
    for name in _BEFORE_JOURNAL_MODE:
        if name in pragmas:
            connection.execute(f"PRAGMA {name} = {pragmas[name]}")
    mode = _journal_mode(connection, f" = {wanted}")
    if mode != wanted:
        raise DatabaseNotUsableError(
            f"{label} stays in journal_mode={mode}, SQLite refused {wanted}; WAL needs shared "
            'memory, which network file systems lack: pragmas={"journal_mode": "TRUNCATE"} '
            "does without"
        )


def _journal_mode(connection: sqlite3.Connection, change: str = "") -> str:
    return str(connection.execute(f"PRAGMA journal_mode{change}").fetchone()[0]).lower()


def _set_pragmas(connection: sqlite3.Connection, pragmas: Mapping[str, Any], label: str) -> None:
    for name, value in pragmas.items():
        if name != "journal_mode":
            connection.execute(f"PRAGMA {name} = {value}")
    # "This pragma is a no-op within a transaction", and where SQLite was built without foreign
    # keys: https://www.sqlite.org/pragma.html#pragma_foreign_keys
    if pragmas.get("foreign_keys") == "ON":
        row = connection.execute("PRAGMA foreign_keys").fetchone()
        if row != (1,):
            raise DatabaseNotUsableError(f"{label}: SQLite does not enforce foreign keys here")
