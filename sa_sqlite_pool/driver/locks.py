"""Locks that somebody else holds: which errors tell of them, and how they are waited for.

Writers of this package meet in the write turn and never here. SQLite's lock is held by programs
that do not know the package, for a moment while a connection opens or closes, and, without WAL,
by readers.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time

from ..errors import ReadTimeout, WriteTimeout
from .rules import Rules

# Seconds between two tries. SQLite's own back-off grows to 100 ms and keeps no order
# (sqliteDefaultBusyCallback in its main.c).
RETRY_SECONDS = (0.001, 0.002)

_LOCKED = frozenset({5, 6})  # SQLITE_BUSY, and SQLITE_LOCKED with a shared cache
_BUSY_SNAPSHOT = 517


def may_pass(error: sqlite3.Error, *, in_transaction: bool) -> bool:
    """Whether the same statement may succeed a moment later."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # Python 3.10 does not tell the code
        return "is locked" in str(error) and not in_transaction
    # "SQLITE_BUSY_SNAPSHOT … occurs on WAL mode databases when a database connection tries to
    # promote a read transaction into a write transaction but finds that another connection has
    # already written": https://www.sqlite.org/rescode.html#busy_snapshot. Waiting cannot help.
    return code & 0xFF in _LOCKED and code != _BUSY_SNAPSHOT


class Patience:
    """One monotonic deadline for all the waiting of one call."""

    __slots__ = ("_deadline", "_rules", "_writing", "seconds")

    def __init__(self, rules: Rules, *, writing: bool) -> None:
        self._rules = rules
        self._writing = writing
        self.seconds = rules.write_timeout if writing else rules.read_timeout
        self._deadline = time.monotonic() + self.seconds

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    async def wait(self, error: sqlite3.Error) -> None:
        """A moment before the next try; the time-out's error when none is left."""
        if self.seconds_left <= 0:
            raise self._timeout() from error
        await asyncio.sleep(random.uniform(*RETRY_SECONDS))  # noqa: S311 - jitter

    def _timeout(self) -> WriteTimeout | ReadTimeout:
        if self._writing:
            return WriteTimeout(
                f"waited {self.seconds:.2f} s to write to {self._rules.label}; "
                f"{self._rules.describe_outside_writers()} holds SQLite's lock; end that "
                "transaction or raise write_timeout"
            )
        return ReadTimeout(
            f"waited {self.seconds:.2f} s to read from {self._rules.label}; another connection "
            "holds SQLite's lock exclusively; end its transaction or raise read_timeout"
        )


class TimeLimit:
    """One monotonic deadline for the running of one statement, from its first use on."""

    __slots__ = ("_deadline", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline: float | None = None

    @property
    def seconds_left(self) -> float:
        if self._deadline is None:
            self._deadline = time.monotonic() + self._seconds
        return max(0.0, self._deadline - time.monotonic())
