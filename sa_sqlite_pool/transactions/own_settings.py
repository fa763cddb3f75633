"""Settings of a connection for which the package and the application need different values.

* ``busy_timeout``: SQLite itself must not wait for a lock, since it may run on the event loop. The
  application's value is stored, and returned by queries.
* ``query_only``: a swap-in connection is read-only as long as its role is "reader".
* A reader attaches other files read-only, and ``PRAGMA optimize`` does nothing on it.
* PRAGMAs that SQLite ignores within a transaction are sent at its end.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import final

from ..errors import ConfigurationError
from ..execution.replies import NO_REPLY, Execute, Parameters, Reply
from ..files.open_files import open_files
from ..settings import Role
from ..sqlite import attaching
from ..sqlite.authorizer import Authorizer
from ..sqlite.driver_errors import dbapi, is_read_only
from ..sqlite.inspection import ask
from ..sqlite.isolation import take_isolation_level
from ..sqlite.statements import Kind, Pragma, parse_pragma
from .rules import Rules


@final
class OwnSettings:
    """The package's own settings of one connection.

    ``read_only`` is True if query_only is on, so that the connection cannot write; None if this is
    unknown, because switching it was interrupted.
    """

    __slots__ = (
        "_attached",
        "_authorizer",
        "_busy_timeout_ms",
        "_lent_ms",
        "_query_only",
        "read_only",
    )

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer
        self._busy_timeout_ms: int | None = None  # the application's; None: it has set none
        self._lent_ms: int | None = None  # SQLite's while the raw connection is lent; else None
        self._query_only = 0  # the application's
        self._attached = 0  # files attached read-only, by the authorizer's count
        self.read_only: bool | None = False

    def execution(
        self, sql: str, kind: Kind, rules: Rules, role: Role, execute: Execute, *, set_up: bool
    ) -> Execute:
        """Return how to execute a statement that may change settings: ``execute`` or a wrapper.

        ``set_up`` is True while a listener runs, before the application has the connection.
        """
        if kind is Kind.ATTACH:
            return self._attaching(rules, execute) if role is Role.READER else execute
        pragma = parse_pragma(sql)
        if pragma is None:
            return execute
        if pragma.name in _FOR_ALL_CONNECTIONS and not set_up:
            return _alone(pragma, rules.file, execute)
        return self._execution_of(pragma, rules, role, execute)

    def _execution_of(self, pragma: Pragma, rules: Rules, role: Role, execute: Execute) -> Execute:
        if pragma.name == "busy_timeout":
            return self._with_busy_timeout(rules, execute)
        if pragma.name == "query_only":
            return self._with_query_only(execute)
        if _is_for_all_connections(pragma, rules):
            return self._unless_it_changes(pragma, rules, execute)
        if pragma.name == "optimize" and role is Role.READER:
            return _unless_read_only(execute)
        return execute

    # -- busy_timeout -----------------------------------------------------------------------------

    @property
    def busy_seconds(self) -> float:
        """SQLite's busy timeout as set by the application; 0.0 if it has set none."""
        return (self._busy_timeout_ms or 0) / 1000

    def note_busy_timeout(self, seconds: float) -> None:
        """Store the value that the application requested when it opened the connection."""
        self._busy_timeout_ms = min(int(max(seconds, 0.0) * 1000), _LONGEST_MS)

    def _with_busy_timeout(self, rules: Rules, execute: Execute) -> Execute:
        def with_it(connection: sqlite3.Connection, sql: str, parameters: Parameters) -> Reply:
            if self._lent_ms is not None:  # while lent, SQLite's own setting is in effect
                return execute(connection, sql, parameters)
            with self._authorizer.aside():
                connection.execute(f"PRAGMA busy_timeout = {self._busy_timeout(rules)}").close()
            try:
                return execute(connection, sql, parameters)
            finally:
                with self._authorizer.aside():
                    self._busy_timeout_ms = ask(connection, "busy_timeout")
                self._authorizer.busy_timeout = True  # it is switched off after the statement

        return with_it

    def lend(self, connection: sqlite3.Connection, rules: Rules, role: Role) -> None:
        """Make SQLite itself wait for locks while the application has the raw connection.

        Switch query_only on for a reader, and off otherwise.
        """
        self._lent_ms = self._busy_timeout(rules)
        with self._authorizer.aside():
            connection.execute(f"PRAGMA busy_timeout = {self._lent_ms}").close()
        read_only = role is Role.READER and not rules.opened_read_only
        if read_only is not self.read_only:
            self.set_read_only(connection, read_only)

    def take_back(self, connection: sqlite3.Connection) -> None:
        """Store the busy timeout set on the raw connection, and switch SQLite's off."""
        with self._authorizer.aside():
            now = ask(connection, "busy_timeout")
        if now != self._lent_ms:
            self._busy_timeout_ms = now
        self._lent_ms = None
        self.switch_off_waiting(connection)
        take_isolation_level(connection)

    def _busy_timeout(self, rules: Rules) -> int:
        """Return the milliseconds that the application has set, or the engine's timeout."""
        if self._busy_timeout_ms is not None:
            return self._busy_timeout_ms
        seconds = rules.read_timeout if rules.role is Role.READER else rules.write_timeout
        return min(int(seconds * 1000), _LONGEST_MS)

    def switch_off_waiting(self, connection: sqlite3.Connection) -> None:
        """Set SQLite's busy timeout to zero, so that it never waits for a lock."""
        with self._authorizer.aside():
            connection.execute("PRAGMA busy_timeout = 0").close()
        self._authorizer.busy_timeout = False

    # -- query_only -------------------------------------------------------------------------------

    def set_read_only(self, connection: sqlite3.Connection, wanted: bool) -> None:
        """Switch query_only on, or back to the application's value. Runs in the thread."""
        with self._authorizer.aside():
            if self.read_only is False:
                self._query_only = ask(connection, "query_only")
            self.read_only = None
            value = 1 if wanted else self._query_only
            connection.execute(f"PRAGMA query_only = {value}").close()
            self.read_only = wanted

    def _with_query_only(self, execute: Execute) -> Execute:
        def as_it_has_it(connection: sqlite3.Connection, sql: str, parameters: Parameters) -> Reply:
            read_only = self.read_only
            if read_only:
                self.set_read_only(connection, False)
            try:
                with self._authorizer.allowing():
                    return execute(connection, sql, parameters)
            finally:
                if read_only:
                    self.set_read_only(connection, True)

        return as_it_has_it

    # -- settings that all connections must share -------------------------------------------------

    def _unless_it_changes(self, pragma: Pragma, rules: Rules, execute: Execute) -> Execute:
        """Execute a listener's PRAGMA, unless it sets a different value from the engine's."""
        name = pragma.name

        def check(connection: sqlite3.Connection, _sql: str, parameters: Parameters) -> Reply:
            with self._authorizer.aside():
                now = str(ask(connection, name)).lower()
            if pragma.value in {None, now}:
                return execute(connection, f"PRAGMA {name}", parameters)
            way_out = "leave it out, since all connections to a file must agree"
            if name == "journal_mode":
                way_out += '; an engine with pragmas={"journal_mode": "TRUNCATE"} works without WAL'
            raise ConfigurationError(
                f"a listener sets {name}={pragma.value} on a connection of {rules.label}, which "
                f"has {name}={now}: {way_out}"
            )

        return check

    # -- readers ----------------------------------------------------------------------------------

    def _attaching(self, rules: Rules, execute: Execute) -> Execute:
        def attach(connection: sqlite3.Connection, sql: str, parameters: Parameters) -> Reply:
            wanted = attaching.ask_what(connection, sql, parameters)
            if wanted is None:  # SQLite will refuse it, unless it is not an ATTACH at all
                return execute(connection, sql, parameters)
            before = self._authorizer.attached
            try:
                with self._authorizer.allowing():
                    attaching.attach_read_only(connection, wanted)
            except dbapi.OperationalError as error:
                raise rules.forbidden(
                    f"ATTACH ({error}), nor create a file: let the writer attach it first"
                ) from error
            finally:  # an ATTACH by a listener is not counted
                self._attached += self._authorizer.attached - before
            return NO_REPLY

        return attach

    def attach_again_read_only(self, connection: sqlite3.Connection) -> None:
        """Reattach, read-only, the files attached before the connection became a reader."""
        with self._authorizer.aside():
            attaching.attach_again_read_only(connection)
        self._attached = self._authorizer.attached

    @property
    def attached_for_writing(self) -> bool:
        """True if a file may have been attached other than by a statement here."""
        return self._attached != self._authorizer.attached


@final
class SettingsAtEnd(dict[str, str]):
    """PRAGMAs, by name, that take effect at the end of the transaction."""

    __slots__ = ()

    def send(self, connection: sqlite3.Connection, authorizer: Authorizer) -> None:
        """Send the deferred PRAGMAs. Runs in the thread.

        An error raised here would look like a failure of the COMMIT, which has succeeded.
        """
        with contextlib.suppress(*dbapi.Error), authorizer.aside():
            for name, sql in list(self.items()):
                connection.execute(sql).close()
                del self[name]


# PRAGMAs of one connection that affect all connections to the file.
_FOR_ALL_CONNECTIONS = frozenset({"journal_mode", "locking_mode"})


def _is_for_all_connections(pragma: Pragma, rules: Rules) -> bool:
    # The journal mode of a database in memory is always "memory".
    own = pragma.schema in {None, "main"} and rules.file is not None
    return own and pragma.name in _FOR_ALL_CONNECTIONS


def _alone(pragma: Pragma, file: str | None, execute: Execute) -> Execute:
    """Execute a PRAGMA for which SQLite may need the exclusive lock on the file.

    With locking_mode = EXCLUSIVE, it acquires that lock later.
    """
    if file is None or pragma.value in {None, "wal", "normal"}:
        return execute
    keeps = pragma.name == "locking_mode" and pragma.value == "exclusive"

    def alone(connection: sqlite3.Connection, sql: str, parameters: Parameters) -> Reply:
        held = open_files.let_go(file)
        try:
            return execute(connection, sql, parameters)
        finally:
            if held and not keeps:
                open_files.hold(file)

    return alone


# SQLite's busy timeout is an int of milliseconds: https://www.sqlite.org/c3ref/busy_timeout.html
_LONGEST_MS = 2**31 - 1


# PRAGMA optimize: "0x00001: Debugging mode. Do not actually perform any optimizations but instead
# return one line of text for each optimization that would have been done", and the default mask
# without it: https://www.sqlite.org/pragma.html#pragma_optimize
_ONLY_SAY, _BY_DEFAULT = 0x1, 0xFFFE


def optimize_only_says(pragma: Pragma) -> bool:
    """Return whether a PRAGMA optimize already uses the debugging mode."""
    return bool(_mask(pragma) & _ONLY_SAY)


def saying_only(pragma: Pragma) -> str:
    """Return the PRAGMA optimize in debugging mode: one row per optimization, and no writes."""
    schema = f"{pragma.schema}." if pragma.schema else ""
    return f"PRAGMA {schema}optimize({_mask(pragma) | _ONLY_SAY})"


def _mask(pragma: Pragma) -> int:
    try:
        return _BY_DEFAULT if pragma.value is None else int(pragma.value, 0)
    except ValueError:  # as SQLite parses it
        return 0


def _unless_read_only(execute: Execute) -> Execute:
    """Execute PRAGMA optimize, which listeners send on both engines; a reader writes nothing."""

    def optimize(connection: sqlite3.Connection, sql: str, parameters: Parameters) -> Reply:
        try:
            return execute(connection, sql, parameters)
        except dbapi.OperationalError as error:
            if not is_read_only(error):
                raise
            return NO_REPLY

    return optimize
