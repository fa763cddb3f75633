"""The write turn of a database file: one for all engines, loops and threads of the process."""

from __future__ import annotations

import asyncio
import threading
import weakref
from typing import final

from ..errors import TurnAlreadyHeldError, WriteTimeout
from .fair_semaphore import FairSemaphore, Permit


@final
class WriteTurn:
    """The right to write to one database file. Get it from :func:`write_turn`.

    ``name`` is what messages call the database.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._line = FairSemaphore(1)

    @property
    def waiting(self) -> int:
        """How many tasks stand in line."""
        return self._line.waiting

    @property
    def holder(self) -> Permit | None:
        """Who may write now; None if nobody does."""
        return next(iter(self._line.permits), None)

    @property
    def seconds_held(self) -> float | None:
        """How long the holder has had the turn; None if nobody has it."""
        return self._line.longest_held_seconds

    async def acquire(self, timeout: float) -> Permit:
        """Wait for the turn, first come, first served, at most ``timeout`` seconds.

        Costs no await where the turn is free. A cancellation leaves no turn taken.

        Raises :class:`~sa_sqlite_pool.WriteTimeout` with the holder's name and whereabouts, and
        :class:`~sa_sqlite_pool.TurnAlreadyHeldError` at once if the task holds the turn.
        """
        if permit := self._line.take_nowait():
            return permit
        if self._line.held_by(asyncio.current_task()):
            raise TurnAlreadyHeldError(
                f"this task already holds the write turn of {self.name} "
                f"({self._line.describe_holders()}) and would wait for itself; write through the "
                "session or connection that is open, or end its transaction first"
            )
        permit = await self._line.acquire(timeout)
        if permit is None:
            raise WriteTimeout(
                f"waited {timeout:.2f} s to write to {self.name}; the turn is held for "
                f"{self._line.describe_holders()}, {self._line.waiting} more in line; "
                "shorten that transaction or raise write_timeout"
            )
        return permit

    def release(self, permit: Permit) -> None:
        """Give the turn to the next in line. From any thread."""
        self._line.release(permit)


_turns: weakref.WeakValueDictionary[str, WriteTurn] = weakref.WeakValueDictionary()
_turns_mutex = threading.Lock()


def write_turn(identity: str, name: str) -> WriteTurn:
    """The turn of the database file ``identity`` (its real path): the same object each time.

    It lives as long as somebody uses it; keep a reference.
    """
    with _turns_mutex:
        turn = _turns.get(identity)
        if turn is None:
            turn = _turns[identity] = WriteTurn(name)
        return turn
