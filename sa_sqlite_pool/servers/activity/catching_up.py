"""Wait until a replica has replayed enough."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, final

from sqlalchemy.util import await_only

from ...errors import ReadTimeout
from ...freshness import Position, token_of
from ...postgresql.sqlstate import SERIALIZATION_FAILURE
from ...system.clock import loop_time, sleep
from ..connections.positions import position_of_reads
from ..connections.server import Server
from ..drivers.answers import AnswerLimit
from ..drivers.interface import Driver

SECONDS_BETWEEN_QUESTIONS = 0.002
"""How long a read waits before it asks a replica again how far it is."""


class Asks(Protocol):
    """Who asks: a :class:`~..replicas.ReplicaPool`. ``timeout`` is seconds, ``error``
    the driver's ``OperationalError``."""

    driver: Driver

    @property
    def error(self) -> type[Exception]: ...

    @property
    def timeout(self) -> float: ...

    def note_silent(self, connection: Any) -> None: ...


@final
class CatchUp:
    """A wait of at most ``pool.timeout`` seconds until reads of ``server`` show ``needed``."""

    def __init__(self, pool: Asks, server: Server, needed: Position) -> None:
        self._pool = pool
        self._server = server
        self._needed = needed
        self._timeout = pool.timeout

    def by(self, connection: Any, own: Any) -> None:
        """Ask by ``connection``, which is in no transaction. In a greenlet.

        Raise :class:`~sa_sqlite_pool.ReadTimeout`, or the driver's ``OperationalError`` if ``own``
        has ended, which is the application's.
        """
        loop = asyncio.get_running_loop()
        end = loop_time(loop) + self._timeout
        while self._server.shows < self._needed:
            if self._pool.driver.is_broken(own):
                raise self._pool.error(f"the connection to {self._server.name} has ended")
            limit = AnswerLimit(self._pool.driver, connection)
            try:
                with limit:
                    position = position_of_reads(self._pool.driver, connection)
            except Exception as error:
                if limit.passed:
                    self._pool.note_silent(connection)
                if getattr(error, "sqlstate", None) != SERIALIZATION_FAILURE:
                    raise
            else:
                self._server.note_position(position)
            if self._server.shows < self._needed:
                if loop_time(loop) >= end:
                    raise self._not_in_time()
                await_only(sleep(SECONDS_BETWEEN_QUESTIONS))

    def _not_in_time(self) -> ReadTimeout:
        return ReadTimeout(
            f"waited {self._timeout:.2f} s for the replica {self._server.name} to show what was "
            f"seen in this fresh() block: it is at {token_of(self._server.shows)} of the log, and "
            f"{token_of(self._needed)} is to be shown; this connection was checked out before, and "
            "cannot go to another server: check one out after the write, as db.read() does for its "
            "first statement, or raise read_timeout"
        )
