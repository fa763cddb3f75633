"""SQLite locks of other connections: which errors report them, and how tasks wait for them.

Writers of this package wait for the write turn, not here. SQLite's lock is held by programs that do
not know the package, briefly while a connection opens or closes, and, without WAL, by readers.
This module decides how long a task waits, also for the turn, and which error a timeout raises.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TypeVar

from ..errors import OwnLockError, ReadLockTimeout, WriteTimeout
from ..sqlite.driver_errors import dbapi, error_code, is_busy, tells_code
from ..system.clock import sleep, time
from ..turn.permit import Permit, is_own, shorten
from ..turn.snapshots import Snapshot
from .rules import Rules

T = TypeVar("T")

# Seconds between two attempts. SQLite's own back-off grows to 100 ms and keeps no order
# (sqliteDefaultBusyCallback in its main.c).
_RETRY_SECONDS = (0.001, 0.002)

_BUSY = 5
_LOCKED = 6
_LOCKED_SHAREDCACHE = 262
_BUSY_SNAPSHOT = 517

# For how many seconds the current task waits to write; None: for the engine's `write_timeout`. A
# migration waits for that of another process, which may take minutes.
write_patience: ContextVar[float | None] = ContextVar("sa_sqlite_pool_patience", default=None)


def may_pass(error: Exception, *, in_transaction: bool) -> bool:
    """Return whether the same statement may succeed if it is retried a moment later."""
    code = error_code(error)
    if code is None or is_own_lock(error):
        return False
    if not tells_code(error):
        return code == _LOCKED_SHAREDCACHE or (code == _BUSY and not in_transaction)
    # "SQLITE_BUSY_SNAPSHOT … occurs on WAL mode databases when a database connection tries to
    # promote a read transaction into a write transaction but finds that another connection has
    # already written": https://www.sqlite.org/rescode.html#busy_snapshot. Waiting cannot help.
    return code & 0xFF in {_BUSY, _LOCKED} and code != _BUSY_SNAPSHOT


def is_own_lock(error: Exception) -> bool:
    """Return whether an open statement of the same connection is in the way of this one.

    "SQLITE_LOCKED … indicates that a write operation could not continue because of a conflict
    within the same database connection" (https://www.sqlite.org/rescode.html#locked); with a shared
    cache the code is different. SQLITE_BUSY means the same if COMMIT, ROLLBACK or RELEASE finds
    statements that are still writing: "cannot commit transaction - SQL statements in progress"
    (``OP_AutoCommit`` and ``OP_Savepoint`` in SQLite's vdbe.c).
    """
    code = error_code(error)
    if code == _LOCKED:
        return True
    return isinstance(error, dbapi.OperationalError) and _IN_PROGRESS in str(error)


_IN_PROGRESS = "SQL statements in progress"


def own_lock_error(error: Exception, twice: str | None, streams: list[str]) -> OwnLockError | None:
    """Return the error to raise if a connection is in its own way; None if it is not.

    ``twice`` is the second name of a file that is attached twice, while a transaction is open;
    ``streams`` are the texts of the connection's open streams.
    """
    if twice is not None and is_busy(error):
        return OwnLockError(
            f"{error}: a file is attached twice, the second time as {twice}, and this "
            "transaction has written to it under its other name; use only one of the names"
        )
    if not is_own_lock(error):
        return None
    texts = "; ".join(map(shorten, streams))
    which = f"{len(streams)} of its streams: {texts}" if streams else "a cursor"
    return OwnLockError(
        f"{error}: a result of the same connection is still open ({which}); read it to the "
        "end, or close it, before this statement"
    )


class NotBegun(Exception):  # noqa: N818 - no error: the caller tries again
    """A lock was in the way of a BEGIN; no statement that should follow it has run."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


async def pause() -> None:
    """Wait briefly between two attempts."""
    await sleep(_jittered())


def pause_here() -> None:
    """Block briefly between two attempts, in a thread that must keep the work it has begun."""
    time.sleep(_jittered())


def _jittered() -> float:
    return random.uniform(*_RETRY_SECONDS)  # noqa: S311


def is_lock(error: Exception) -> bool:
    """Return whether another connection's lock stopped work that has not begun a transaction."""
    return isinstance(error, dbapi.OperationalError) and may_pass(error, in_transaction=False)


async def keep_trying(
    attempt: Callable[[], Awaitable[T]],
    seconds: float,
    passes: Callable[[Exception], bool] = is_lock,
) -> T:
    """Retry ``await attempt()`` until it succeeds, for at most ``seconds``.

    Raise its last error at the deadline, and immediately an error that ``passes`` rejects. A wait
    in SQLite's own busy handler could not be cancelled.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await attempt()
        except Exception as error:
            if not passes(error) or time.monotonic() >= deadline:
                raise
        await pause()


def _seconds(rules: Rules, *, writing: bool, busy_seconds: float) -> float:
    if not writing:
        given, seconds = rules.read_timeout_given, rules.read_timeout
    elif (own := write_patience.get()) is not None:
        return own
    else:
        given, seconds = rules.write_timeout_given, rules.write_timeout
    return seconds if given else max(seconds, busy_seconds)


class Patience:
    """One monotonic deadline for all waits of one call.

    ``busy_seconds`` is SQLite's busy timeout if the application has set it, else 0.0.
    """

    __slots__ = ("_commits", "_deadline", "_permit", "_rules", "_writing", "seconds")

    def __init__(
        self,
        rules: Rules,
        permit: Permit | None,
        *,
        writing: bool,
        commits: bool = False,
        began: float | None = None,
        seconds: float | None = None,
        busy_seconds: float = 0.0,
    ) -> None:
        self._rules = rules
        self._permit = permit
        self._writing = writing
        self._commits = commits
        if seconds is None:
            seconds = _seconds(rules, writing=writing, busy_seconds=busy_seconds)
        self.seconds = seconds
        self._deadline = (time.monotonic() if began is None else began) + seconds

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    @property
    def seconds_gone(self) -> float:
        return self.seconds - self.seconds_left

    async def wait(self, error: Exception) -> None:
        """Pause before the next attempt; raise the timeout error after the deadline.

        Raise OwnLockError at once if the task would wait for its own read or write.
        """
        if self._commits and (own := self._own_read()) is not None:
            raise OwnLockError(
                f"a commit to {self._rules.label} would wait for itself: without WAL it waits for "
                "all reads to end, and the same task is reading on another connection, for "
                f"{own.describe(time.monotonic())}; end that transaction, or close its stream, "
                "before committing; this one was rolled back"
            ) from error
        if self._is_shared(error) and (held := self._held_by_task()) is not None:
            raise OwnLockError(
                f"{error}: it would wait for itself: connections to {self._rules.label} share a "
                "cache, or an in-memory database, and so lock tables for one another, and "
                f"{held} on another one; end that transaction first, or use :memory: or a file "
                "without cache=shared, where readers do not wait"
            ) from error
        if self.seconds_left <= 0:
            raise self.not_in_time(error) from error
        await pause()

    def _is_shared(self, error: Exception) -> bool:
        """Return whether the lock is certainly held by this process."""
        return error_code(error) == _LOCKED_SHAREDCACHE or self._rules.file is None

    def _held_by_task(self) -> str | None:
        """Describe the same task's work on another connection that holds the lock; None if none."""
        now = time.monotonic()
        if not self._writing:  # read locks do not block readers
            holder = self._rules.turn.holder
            own = holder is not None and is_own(holder)
            return (
                f"the same task is writing, for {holder.describe(now)}," if own and holder else None
            )
        others = self._other_reads()
        if others and all(is_own(snapshot.permit) for snapshot in others):
            return f"the same task is reading, for {others[0].describe(now)},"
        return None

    def _own_read(self) -> Snapshot | None:
        others = self._other_reads() if self._rules.commits_wait else []
        return next((snapshot for snapshot in others if is_own(snapshot.permit)), None)

    def _other_reads(self) -> list[Snapshot]:
        snapshots = self._rules.snapshots
        return [snapshot for snapshot in snapshots if snapshot.permit is not self._permit]

    def not_in_time(self, error: Exception | None = None) -> WriteTimeout | ReadLockTimeout:
        """Return the error for a timeout; ``error`` is the last one that SQLite raised."""
        message = self._what_was_waited_for()
        cls = WriteTimeout if self._writing else ReadLockTimeout
        return cls(message, error)

    def _what_was_waited_for(self) -> str:
        reader = self._reader_in_the_way()
        if self._commits and reader is not None:
            return (
                f"waited {self.seconds:.2f} s to commit to {self._rules.label}, and rolled back; "
                "without WAL, a commit waits until no read transaction is open, and "
                f"{reader}; end read transactions sooner, or raise write_timeout"
            )
        if not self._writing and reader is not None:
            return (
                f"waited {self.seconds:.2f} s to read from {self._rules.label}; without WAL, "
                "no read transaction can begin while a commit waits for the open ones, and "
                f"{reader}; end read transactions sooner, or raise read_timeout"
            )
        if self._writing:
            return (
                f"waited {self.seconds:.2f} s to write to {self._rules.label}; "
                f"{self._rules.describe_outside_writers()} holds SQLite's lock; end that "
                "transaction or raise write_timeout"
            )
        return (
            f"waited {self.seconds:.2f} s to read from {self._rules.label}; another connection "
            "holds SQLite's lock exclusively; end its transaction or raise read_timeout"
        )

    def _reader_in_the_way(self) -> str | None:
        others = self._other_reads() if self._rules.commits_wait else []
        if not others:
            return None
        who = others[0].describe(time.monotonic())
        own = ", which is waiting for itself" if is_own(others[0].permit) else ""
        return f"one has been held open for {who}{own}"
