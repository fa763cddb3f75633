"""Query the positions of servers, and wait until a replica has replayed enough."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

from sqlalchemy.util import await_only

from ...errors import ReadTimeout
from ...freshness import Position, token_of
from ...postgresql.sqlstate import SERIALIZATION_FAILURE
from ...system.clock import loop_time, sleep
from ..connections.positions import position_of_reads
from ..connections.server import Server
from ..drivers.answers import AnswerLimit
from ..drivers.interface import Driver
from ..pool import ServerPool

Question: TypeAlias = Callable[[Driver, Any], Position]

SECONDS_BETWEEN_QUESTIONS = 0.002
"""How long a read waits before it queries the position of a replica again."""


def ask(
    pool: ServerPool, server: Server, connection: Any, what: Question = position_of_reads
) -> Position:
    """Query and record the position of ``server``, on a ``connection`` that is in no transaction.

    If the server does not respond in time, record that as well. Must run in a greenlet.
    """
    limit = AnswerLimit(pool.driver, connection)
    try:
        with limit:
            position = what(pool.driver, connection)
    except BaseException:
        if limit.passed:
            pool.is_silent(server)
        raise
    server.note_position(position)
    return position


def wait_until_shown(
    pool: ServerPool, server: Server, needed: Position, connection: Any, own: Any
) -> None:
    """Wait until reads of ``server`` show ``needed``, for at most ``pool.timeout`` seconds.

    Query it on ``connection``, as :func:`ask` does. Raise :class:`~sa_sqlite_pool.ReadTimeout`, or
    the driver's ``OperationalError`` if ``own``, the application's connection, has been closed.
    """
    loop = asyncio.get_running_loop()
    end = loop_time(loop) + pool.timeout
    while server.shows < needed:
        if pool.driver.is_broken(own):
            raise pool.error(f"the connection to {server.name} was lost")
        try:
            ask(pool, server, connection)
        except Exception as error:
            if getattr(error, "sqlstate", None) != SERIALIZATION_FAILURE:
                raise
        if server.shows < needed:
            if loop_time(loop) >= end:
                raise _not_in_time(pool, server, needed)
            await_only(sleep(SECONDS_BETWEEN_QUESTIONS))


def _not_in_time(pool: ServerPool, server: Server, needed: Position) -> ReadTimeout:
    return ReadTimeout(
        f"waited {pool.timeout:.2f} s for the replica {server.name} to show what was seen in this "
        f"fresh() block: it is at {token_of(server.shows)} of the log, and {token_of(needed)} is "
        "needed; this connection was checked out before, and cannot move to another server: "
        "check one out after the write, as db.read() does for its first statement, or raise "
        "read_timeout"
    )
