"""Probe servers that are down: try to connect until they respond."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import final

from ...compat.greenlets import greenlet_spawn
from ...system.clock import sleep
from .server import Server

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0


@final
class Probes:
    """The tasks that probe servers, one for each server that is down."""

    def __init__(self) -> None:
        self._tasks: dict[Server, asyncio.Task[None]] = {}
        self._stopped = False

    def watch(self, server: Server, probe: Callable[[Server], None]) -> None:
        """Call ``probe`` in a greenlet, with pauses in between, until it raises no error.

        Do nothing if a task of an event loop that is not closed watches the server already, or
        after :meth:`stop`.
        """
        if self._stopped:
            return
        task = self._tasks.get(server)
        if task is None or task.done() or task.get_loop().is_closed():
            loop = asyncio.get_running_loop()
            self._tasks[server] = loop.create_task(
                _probe_until_up(server, probe), name=f"sa_sqlite_pool: {server.name} is down"
            )

    def stop(self) -> None:
        """Cancel all probes, and start no more."""
        self._stopped = True
        for task in self._tasks.values():
            if not task.get_loop().is_closed():
                task.cancel()

    async def stopped(self) -> None:
        """Wait until the cancelled tasks have ended."""
        here = asyncio.get_running_loop()
        if own := [task for task in self._tasks.values() if task.get_loop() is here]:
            await asyncio.wait(own)


async def _probe_until_up(server: Server, probe: Callable[[Server], None]) -> None:
    pause = FIRST_PAUSE_SECONDS
    while not server.is_up:
        await sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        try:
            await greenlet_spawn(probe, server)
        except Exception as error:
            server.outages.failure = error
