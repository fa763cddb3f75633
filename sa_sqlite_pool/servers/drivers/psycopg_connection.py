"""A psycopg connection whose operations end soon after they are cancelled.

When cancelled, psycopg's ``AsyncConnection.wait()`` asks the server to cancel the statement, and
waits until it has, for ten seconds or longer. With a libpq before version 17, it does so in a
thread of the loop's executor, for which ``asyncio.run()`` waits at its end, too.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, final

import psycopg
from psycopg import AsyncConnection, AsyncServerCursor, capabilities

from ...system.clock import Timer, call_later
from ...system.waiting import done_in_time
from . import sockets
from .answers import SECONDS_TO_ANSWER


@final
class PromptConnection(AsyncConnection[Any]):
    """A connection whose socket is shut down ``SECONDS_TO_ANSWER`` after an unanswered cancel.

    ``silent`` tells whether that was necessary. ``operations`` counts operations that send data.
    """

    silent = False
    operations = 0
    server_cursor_factory: Any
    _waiting: asyncio.Task[Any] | None = None
    _limit: Timer | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.server_cursor_factory = PromptServerCursor

    async def wait(self, *arguments: Any, **options: Any) -> Any:
        self._waiting = asyncio.current_task()
        self.operations += 1
        try:
            return await super().wait(*arguments, **options)
        except psycopg.Error as error:
            if self._limit is not None:  # psycopg 3.3.0 raises it instead of the cancellation
                raise asyncio.CancelledError from error
            raise
        finally:
            self._waiting = None
            if self._limit is not None:
                self._limit.cancel()
                self._limit = None

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:
        """Ask the server to cancel the statement. ``wait()`` calls this when it is cancelled."""
        if self._waiting is not asyncio.current_task():  # the application has called it
            await super().cancel_safe(timeout=timeout)
            return
        self._limit = call_later(asyncio.get_running_loop(), SECONDS_TO_ANSWER, self._give_up)
        if capabilities.has_cancel_safe():
            await super().cancel_safe(timeout=SECONDS_TO_ANSWER)
        else:
            await self._cancel_in_thread()

    async def _cancel_in_thread(self) -> None:
        sent: Future[None] = Future()

        def send() -> None:
            with suppress(psycopg.Error):
                self.cancel()
            sent.set_result(None)

        threading.Thread(target=send, daemon=True, name="sa_sqlite_pool: cancel").start()
        await done_in_time(sent, SECONDS_TO_ANSWER)

    def _give_up(self) -> None:
        self.silent = True
        shut_down(self)


@final
class PromptServerCursor(AsyncServerCursor[Any]):
    """A server-side cursor that closes within a moment, and not at all on a closed connection."""

    def __del__(self, *_: Any) -> None:
        if not self._conn.closed:
            super().__del__()

    async def close(self) -> None:
        connection: Any = self._conn
        loop = asyncio.get_running_loop()
        limit = call_later(loop, SECONDS_TO_ANSWER, connection._give_up)
        try:
            await super().close()
        except psycopg.Error:
            if not connection.silent:
                raise
        finally:
            limit.cancel()


def shut_down(connection: AsyncConnection[Any]) -> None:
    """Shut the socket down; whatever waits for it notices, and frees it.

    ``close()`` would free what a task that waits for the socket is still using.
    """
    with suppress(psycopg.Error):
        sockets.shut_down(connection.pgconn.socket)
