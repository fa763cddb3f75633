"""Retry a transaction that the server aborted in favour of another."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import TypeVar, final

from sqlalchemy.exc import DBAPIError

from ..postgresql.sqlstate import DEADLOCK_DETECTED, SERIALIZATION_FAILURE, sqlstate_of
from ..system.clock import sleep
from ..system.forks import renew_after_fork

T = TypeVar("T")

DEFAULT_ATTEMPTS = 20

_FIRST_PAUSE_SECONDS = 0.005
_LONGEST_PAUSE_SECONDS = 0.5


@final
class _Run:
    """One run of a transaction of ``owner``, and whether its own task has committed it."""

    __slots__ = ("committed", "owner", "task")

    def __init__(self, owner: object) -> None:
        self.owner = owner
        self.task = asyncio.current_task()  # tasks that it starts inherit its context
        self.committed = False


_run: ContextVar[_Run | None] = ContextVar("sa_sqlite_pool_run", default=None)


def note_committed(owner: object) -> None:
    """Record that a COMMIT of ``owner`` has succeeded: an error after it causes no retry."""
    run = _run.get()
    if run is not None and run.owner is owner and run.task is asyncio.current_task():
        run.committed = True


@final
class Retries:
    """At most ``attempts`` runs of one transaction, with growing pauses in between.

    A pause is a random part of 5 ms, 10 ms, 20 ms …, at most 0.5 s, so that transactions that
    failed together do not collide again. ``owner`` is the database; ``retried`` counts the failed
    runs that were repeated.
    """

    def __init__(self, owner: object, attempts: int) -> None:
        self._owner = owner
        self._attempts = attempts
        self.renew_in_child()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        self.retried = 0

    async def run(self, transaction: Callable[[], Awaitable[T]]) -> T:
        """Return what ``transaction()`` returns, or raise what its last run raises."""
        attempt = 1
        while True:
            run = _Run(self._owner)
            token = _run.set(run)
            try:
                return await transaction()
            except DBAPIError as error:
                # An error raised by a listener of the commit is no reason to write again.
                if run.committed or attempt >= self._attempts or not may_succeed_again(error):
                    raise
            finally:
                with suppress(ValueError):  # in another context, where the run was not set
                    _run.reset(token)
            self.retried += 1
            await sleep(self._pause(attempt))
            attempt += 1

    def _pause(self, attempt: int) -> float:
        longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
        return random.uniform(0, longest)  # noqa: S311


def may_succeed_again(error: DBAPIError) -> bool:
    """Return whether the same transaction was rolled back and may succeed when it runs again.

    A replica uses the same code when it cancels a read in favour of what it replays.

    https://www.postgresql.org/docs/current/mvcc-serialization-failure-handling.html
    """
    return sqlstate_of(error) in {SERIALIZATION_FAILURE, DEADLOCK_DETECTED}
