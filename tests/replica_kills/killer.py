"""Ways to end a reader's connection: by an administrator, and by the network."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

WAYS = ("backend", "socket")

_WHO = text("SELECT pg_backend_pid(), current_setting('port')::int")
_KILL = text("SELECT pg_terminate_backend(:pid)")


class Victim(NamedTuple):
    """The connection by which a session reads: its backend, the server's port, its local socket."""

    pid: int
    port: int
    descriptor: int

    @classmethod
    async def of(cls, session: AsyncSession) -> Victim:
        """Return the reader of a session, determined by a read."""
        result = await session.execute(_WHO)
        pid, port = result.one()
        connection: Any = session.sync_session.get_transaction()
        raw = connection.reader_connection().connection.driver_connection
        return cls(pid, port, os.dup(_socket(raw)))

    def close(self) -> None:
        """Close the socket."""
        os.close(self.descriptor)


class Killer:
    """Kills victims. ``admins`` are engines to the servers, by port."""

    def __init__(self, admins: dict[int, AsyncEngine]) -> None:
        self._admins = admins

    async def kill(self, victim: Victim, rng: Random, ways: Sequence[str] = WAYS) -> str | None:
        """Kill it, and return the way used; None if it had ended by itself."""
        way = rng.choice(ways)
        if way == "socket":
            cut = socket.socket(fileno=os.dup(victim.descriptor))
            with cut, suppress(OSError):
                cut.shutdown(socket.SHUT_RDWR)
                return way
            return None
        async with self._admins[victim.port].connect() as connection:
            return way if await connection.scalar(_KILL, {"pid": victim.pid}) else None


def _socket(driver: Any) -> int:
    if hasattr(driver, "pgconn"):
        return int(driver.pgconn.socket)
    return int(driver._transport.get_extra_info("socket").fileno())  # asyncpg has no public way
