"""How long a server may take to end something before its connection is given up.

A server that is stopped, or a network that drops packets, closes no connection: a query gets no
answer, and a cancellation would wait forever for the transaction to end. Giving up a connection
loses nothing, since the server rolls its transaction back when it finds the connection gone.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, final

from ...system.clock import Timer, call_later
from .interface import Driver

SECONDS_TO_ANSWER = 1.0
"""The limit for a ROLLBACK, the end of a connection or a statement, and a position query."""

# If the event loop was blocked meanwhile, the answer may be there, and its task not resumed yet.
_SECONDS_TO_RUN = 0.05


@final
class AnswerLimit:
    """A block that breaks ``connection`` after ``seconds``: whatever waits for it fails then.

    ``passed`` tells whether it did: the connection is broken even if an answer came at the last
    moment. None means no limit, and there is none outside of an event loop. ``connection`` is
    SQLAlchemy's adapted connection.
    """

    __slots__ = ("_connection", "_driver", "_seconds", "_timer", "passed")

    def __init__(
        self, driver: Driver, connection: Any, seconds: float | None = SECONDS_TO_ANSWER
    ) -> None:
        self._driver = driver
        self._connection = connection
        self._seconds = seconds
        self._timer: Timer | None = None
        self.passed = False

    def __enter__(self) -> AnswerLimit:
        if self._seconds is not None:
            with suppress(RuntimeError):  # no loop is running
                loop = asyncio.get_running_loop()
                self._timer = call_later(loop, self._seconds, self._is_late)
        return self

    def __exit__(self, *_error: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _is_late(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = call_later(loop, _SECONDS_TO_RUN, self._give_up)

    def _give_up(self) -> None:
        self.passed = True
        self._driver.abort(self._connection)
