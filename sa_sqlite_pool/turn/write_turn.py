"""The write turn of a database file: one for all engines, loops and threads of the process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import final

from ..errors import TurnAlreadyHeldError, WriteTimeout
from ..registry import OnePerFile
from .fair_semaphore import FairSemaphore
from .permit import Permit


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

    async def acquire(self, timeout: float, owner: object = None) -> Permit:
        """Wait for the turn, first come, first served, at most ``timeout`` seconds.

        Costs no await where the turn is free. A cancellation leaves no turn taken. ``owner`` is
        for whom the task waits: see :meth:`send_away`.

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
        permit = await self._line.acquire(timeout, owner)
        if permit is None:
            raise WriteTimeout(
                f"waited {timeout:.2f} s to write to {self.name}; the turn is held for "
                f"{self._line.describe_holders()}, {self._line.waiting} more in line; "
                "shorten that transaction or raise write_timeout"
            )
        return permit

    def take_nowait(self) -> Permit | None:
        """The turn if nobody has it, without waiting. For use inside an event loop."""
        return self._line.take_nowait()

    def release(self, permit: Permit) -> None:
        """Give the turn to the next in line. From any thread."""
        self._line.release(permit)

    def send_away(self, owner: object, error: Callable[[], Exception]) -> None:
        """Raise ``error()`` in the tasks that wait for ``owner``."""
        self._line.send_away(owner, error)


_turns: OnePerFile[WriteTurn] = OnePerFile()


def write_turn(identity: str, name: str) -> WriteTurn:
    """The turn of the database file ``identity`` (its real path): the same object each time.

    It lives as long as somebody uses it; keep a reference.
    """
    return _turns.get(identity, lambda: WriteTurn(name))
