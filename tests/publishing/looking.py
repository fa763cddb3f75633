"""Helpers to inspect published databases."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from sa_sqlite_pool.publishing import addresses
from sa_sqlite_pool.publishing.asking import Answer, ask_all
from tests.children import Child
from tests.helpers import until


def sockets(path: Path) -> list[str]:
    return addresses.paths(str(path))


async def published(path: Path, count: int = 1) -> list[str]:
    """Return the sockets beside ``path`` once their threads listen on ``count`` of them."""
    await until(lambda: len(sockets(path)) == count)
    await asyncio.to_thread(ask, path)  # this waits for listen()
    return sockets(path)


def ask(path: Path, timeout: float = 10.0) -> list[Answer]:
    return ask_all(str(path), timeout)


async def ask_beside(path: Path, timeout: float = 10.0) -> list[Answer]:
    """Query the processes in a thread, without blocking the loop."""
    return await asyncio.to_thread(ask, path, timeout)


def make_old(socket: str) -> None:
    """Make a socket so old that its process must be listening on it by now."""
    then = time.time() - 60
    os.utime(socket, (then, then))


def stop(child: Child, path: Path) -> None:
    """Stop the process, and wait until its threads have stopped, too, a moment later."""
    child.stop()
    while any(found.pid == child.pid and found.statistics for found in ask(path, 0.2)):
        pass


def make_stale(path: Path) -> str:
    """Create a socket like that of a process that was killed a minute ago."""
    with listening(path, backlog=None) as found:
        pass
    make_old(found)
    return found


@contextlib.contextmanager
def listening(path: Path, backlog: int | None = 1) -> Iterator[str]:
    """Listen on a socket of a process that is not visible here, for example in a container."""
    found = f"{path}-status-4194305-0123ab"  # above the largest process ID, 2**22
    with socket.socket(socket.AF_UNIX) as listener:
        addresses.bind(listener, found)
        if backlog is not None:
            listener.listen(backlog)
        yield found
