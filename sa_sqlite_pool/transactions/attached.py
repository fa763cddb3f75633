"""Files attached to a connection that writes: which ones it locks, and in which turns.

``BEGIN IMMEDIATE`` acquires the write lock of every attached file, even of a file that is only
read, and of the connection's own file if that is attached under a second name. So a connection
with attached files begins with a plain BEGIN, and each statement locks the files it writes
(``OP_Transaction``), in the write turns of these files.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol, TypeVar, final

from ..settings import Role
from ..sqlite.authorizer import Authorizer
from ..sqlite.driver_errors import dbapi
from ..sqlite.inspection import ask, rows
from ..sqlite.tokens import quoted
from ..turn.file_requests import FileLockRequest
from ..turn.permit import Permit
from ..turn.write_turn import WriteTurn
from .locks import Patience
from .rules import Rules

T = TypeVar("T")

_MAIN = 0

# The size in bytes of an attached file's log above which a commit runs a checkpoint of it.
_LARGE_LOG = 16 * 1024 * 1024


class _Held(NamedTuple):
    file: str
    turn: WriteTurn
    permit: Permit
    request: FileLockRequest


class RunsInThread(Protocol):
    """The interface of a connection to work that needs its thread."""

    def run(
        self, function: Callable[[sqlite3.Connection], T], /, *, interruptible: bool
    ) -> Awaitable[T]:
        """Call ``function(connection)`` in the thread."""


@final
class AttachedFiles:
    """The attached files of one connection, and the turns of the files that its transaction writes.

    :meth:`learn` reads the list of files, and must be called when ``out_of_date`` is True.
    """

    __slots__ = ("_authorizer", "_files", "_names", "_seen", "any", "held")

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer
        self._seen = 0  # the authorizer's count of ATTACH and DETACH at the last learn()
        self._files: dict[int, str] = {}  # real paths by database number
        self._names: dict[str, str] = {}  # schema names by real path
        self.held: list[_Held] = []
        self.any = False  # whether any file is attached

    @property
    def out_of_date(self) -> bool:
        return self._seen != self._authorizer.attached

    def learn(self, connection: Any) -> None:
        """Read the list of attached files. Runs in the connection's thread."""
        seen = self._authorizer.attached
        with self._authorizer.aside():
            found = rows(connection, "PRAGMA database_list")
        self._files = {number: os.path.realpath(file) for number, _, file in found if file}
        self._names = {os.path.realpath(file): name for number, name, file in found if number > 1}
        self.any = any(number > 1 for number in self._files)
        self._seen = seen

    @property
    def own_file_twice(self) -> str | None:
        """The second name of a file that is attached twice, or is also main; None if none is."""
        files = list(self._files.values())
        twice = [file for file in files if files.count(file) > 1]
        return self._names[twice[0]] if twice else None

    @property
    def numbers(self) -> frozenset[int]:
        """The numbers that SQLite assigns to the attached databases."""
        return frozenset(number for number in self._files if number > 1)

    async def take_turns(self, databases: frozenset[int], rules: Rules, patience: Patience) -> None:
        """Wait for the turns of the files that a statement writes, except main's.

        Main's turn comes first, which serializes the transactions of one engine, whatever the order
        in which each writes its files. The others are acquired in the order of their paths. After a
        cancellation, turns already acquired stay held until the transaction ends.
        """
        if rules.role is Role.READER:
            return
        written = {self._files[number] for number in databases if number in self._files}
        has_turn = {self._files.get(_MAIN, ""), *(held.file for held in self.held)}
        for file in sorted(written - has_turn):
            await self._take(file, rules.turn, rules, patience)

    async def _take(self, file: str, main: WriteTurn, rules: Rules, patience: Patience) -> None:
        turn = main.turn_of(file)
        if main.shared:
            turn.share()
        seconds, owner, watch = patience.seconds, rules.owner, rules.wait_watch
        permit = await turn.acquire(seconds, owner, waited=patience.seconds_gone, watch=watch)
        try:
            request = await turn.enter(seconds, owner, waited=patience.seconds_gone, watch=watch)
        except BaseException:
            turn.release(permit)
            raise
        self.held.append(_Held(file, turn, permit, request))

    def give_back(self) -> None:
        """Release the turns after the end of the transaction. Callable from any thread."""
        while self.held:
            held = self.held.pop()
            held.request.release()
            held.turn.release(held.permit)

    def look_at_logs(self, connection: Any) -> None:
        """Run checkpoints of large logs of the written files, after COMMIT, in their turns.

        SQLite's automatic checkpoint is off: it would run outside the turns.
        """
        for held in self.held:
            # The COMMIT has succeeded: an error here, as from an open cursor, must not hide that.
            with contextlib.suppress(OSError, *dbapi.Error), self._authorizer.aside():
                if _has_large_log(held.file):
                    name = quoted(self._names[held.file])
                    connection.execute(f"PRAGMA {name}.wal_checkpoint")

    async def move_large_logs(self, connection: RunsInThread, main: WriteTurn) -> None:
        """Run checkpoints of large logs after functions, which write outside the other turns.

        Each runs in its file's turn, if that is free now; otherwise, and after an error, a later
        COMMIT, by whatever holds the turn, will find the log still large.
        """
        if not self.any and not self.out_of_date:  # all were detached
            return
        try:
            with contextlib.suppress(Exception):
                # Not interruptible: a checkpoint must not continue without its turn.
                for file in await connection.run(self._with_large_logs, interruptible=False):
                    self._take_nowait(file, main)
                if self.held:
                    await connection.run(self.look_at_logs, interruptible=False)
        finally:
            self.give_back()

    def _take_nowait(self, file: str, main: WriteTurn) -> None:
        turn = main.turn_of(file)
        if main.shared:
            turn.share()
        permit, request = turn.acquire_nowait(), None
        if permit is None:
            return
        try:
            request = turn.enter_nowait()
        finally:
            if request is None:
                turn.release(permit)
        if request is not None:
            self.held.append(_Held(file, turn, permit, request))

    def _with_large_logs(self, connection: Any) -> list[str]:
        if self.out_of_date:
            self.learn(connection)
        return [
            file for file in self._names if file != self._files.get(_MAIN) and _has_large_log(file)
        ]


def _has_large_log(file: str) -> bool:
    try:
        return os.stat(f"{file}-wal").st_size > _LARGE_LOG
    except OSError:  # there is no log
        return False


def begin_and_lock_main(connection: Any, authorizer: Authorizer) -> None:
    """Send BEGIN, and acquire the write lock of the database itself, but of no attached file.

    A DELETE that matches no row acquires the lock and writes nothing. If there is no table,
    ``user_version`` is set to its current value.
    """
    with authorizer.aside():
        row = next(iter(rows(connection, _ANY_TABLE)), None)
        connection.execute("BEGIN")
        try:
            _lock_main(connection, None if row is None else row[0])
        except BaseException:
            connection.execute("ROLLBACK")
            raise


def _lock_main(connection: Any, table: str | None) -> None:
    if table is not None:
        # Its triggers may fail to compile, for example if a function is not registered.
        with contextlib.suppress(*dbapi.OperationalError):
            connection.execute(f"DELETE FROM main.{quoted(table)} WHERE 0")  # noqa: S608
            return
    version = ask(connection, "main.user_version")
    connection.execute(f"PRAGMA main.user_version = {version}")


_ANY_TABLE = (
    "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' "
    "ESCAPE '\\' AND sql LIKE 'CREATE TABLE%' LIMIT 1"
)
