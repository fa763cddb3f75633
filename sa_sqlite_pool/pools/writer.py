"""The writer engine's pool: one connection behind the write turn."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from ..errors import ConfigurationError
from ..settings import ConnectionSettings, Role
from ..transactions.locks import write_patience
from ..turn.permit import Permit
from ..turn.write_turn import Place, WriteTurn, place_in_line
from .base import FairPool


class WriterPool(FairPool):
    """One connection; whoever has it checked out has the write turn of the file.

    ``create_async_engine(url, poolclass=WriterPool)``. There is one line for all engines on a
    file, so waiting for the connection and waiting for the turn are the same, and everything on
    the connection is under the turn of the process: transactions (BEGIN IMMEDIATE), AUTOCOMMIT,
    VACUUM, migrations, the raw driver connection. Between processes the turn is taken with
    SQLite's lock, which the raw driver connection takes by itself. A checkout waits at most
    ``pool_timeout`` (by default ``write_timeout``) seconds and then gets a
    :class:`~sa_sqlite_pool.WriteTimeout`; with None, it waits as long as it takes.

    Give the connection back as soon as the transaction is over; sessions do so by themselves.
    """

    role = Role.WRITER

    def __init__(
        self,
        creator: Callable[..., Any],
        pool_size: int = 1,
        max_overflow: int = 0,
        **kw: Any,
    ) -> None:
        if (pool_size, max_overflow) != (1, 0):
            raise ConfigurationError(
                "a WriterPool has exactly one connection, since SQLite allows one writer; "
                "leave pool_size and max_overflow out"
            )
        super().__init__(creator, pool_size=1, max_overflow=0, **kw)

    @cached_property
    def turn(self) -> WriteTurn:
        """The write turn of the file, shared with every engine on it."""
        return self._turn_of_file()

    @property
    def waiting(self) -> int:
        return self.turn.waiting

    def stand_in_line(self) -> Place:
        """A place in line for this connection, now; for a task that sets ``place_in_line``."""
        return self.turn.stand_in_line(self._opening)

    def _default_timeout(self, settings: ConnectionSettings) -> float:
        return settings.write_timeout

    def _take_nowait(self) -> Permit | None:
        return self.turn.take_nowait()

    async def _acquire(self, waited: float) -> Permit:
        if place := place_in_line.get():
            return await place.wait()
        patience = write_patience.get()
        seconds = self._timeout if patience is None else patience
        permit = await self.turn.wait_in_line(seconds, self._opening, waited=waited)
        if seconds is None:  # that took as long as it took, and leaves all of write_timeout
            permit.seconds_waited = 0.0
        return permit

    def _release(self, permit: Permit) -> None:
        self.turn.release(permit)
