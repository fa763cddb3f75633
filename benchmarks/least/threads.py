"""Functions in a thread with one connection of synchronous SQLAlchemy: a queue, and no more.

Each call is a separate transaction, since each has its own snapshot, or commits separately.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session

from ..ways.base import Open, Way
from ..ways.engines import Pragmas
from ..ways.settings import Settings, settings_of
from ..ways.steps import Operation, drive
from ..ways.threads import execute
from .dialect import THREAD_READS, THREAD_WRITES
from .engines import in_thread

_Do = Callable[[Connection, Operation, int], None]
_Call = tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]]
_Outcome = tuple[asyncio.Future[Any], Any, BaseException | None]


def read(connection: Connection, operation: Operation, key: int) -> None:
    """Run the operation between BEGIN and ROLLBACK."""
    try:
        drive(operation(key), partial(execute, connection))
    finally:
        connection.rollback()


def write(connection: Connection, operation: Operation, key: int) -> None:
    """Run the operation between BEGIN IMMEDIATE and COMMIT."""
    with connection.begin():
        drive(operation(key), partial(execute, connection))


def read_with_session(connection: Connection, operation: Operation, key: int) -> None:
    """Do the same through a new session."""
    with Session(connection) as session:
        drive(operation(key), partial(execute, session))


def write_with_session(connection: Connection, operation: Operation, key: int) -> None:
    """Do the same through a new session."""
    with Session(connection) as session, session.begin():
        drive(operation(key), partial(execute, session))


def _settings(connection: Connection) -> Settings:
    found = settings_of(connection)
    connection.rollback()  # end the transaction of these queries
    return found


class Thread:
    """A thread with a queue of calls; one wake-up of the loop delivers all available outcomes.

    :param at_once: wake the loop when a call has ended, unless it has already been woken.
        Otherwise, wake it when the queue is empty. That costs far less, since a thread that is
        woken competes for the interpreter lock, but the first outcome arrives as late as the last.
    """

    def __init__(self, engine: Engine, do: _Do, at_once: bool) -> None:
        self._engine = engine
        self._do = do
        self._at_once = at_once
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._outcomes: deque[_Outcome] = deque()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    async def read(self, operation: Operation, key: int) -> None:
        done = self._loop.create_future()
        self._calls.put((done, self._do, (operation, key)))
        await done

    write = read

    async def settings(self, *, writes: bool) -> Settings:
        del writes  # there is only one connection
        done: asyncio.Future[Settings] = self._loop.create_future()
        self._calls.put((done, _settings, ()))
        return await done

    def end(self) -> None:
        """End the thread once no call waits or runs any more."""
        self._calls.put(None)
        self._thread.join()
        self._engine.dispose()

    def _run(self) -> None:
        calls, outcomes = self._calls, self._outcomes
        with self._engine.connect() as connection:
            while (call := calls.get()) is not None:
                done, do, arguments = call
                result, error = None, None
                try:
                    result = do(connection, *arguments)
                except BaseException as raised:
                    error = raised
                outcomes.append((done, result, error))
                if len(outcomes) == 1 if self._at_once else calls.empty():
                    self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        while self._outcomes:
            done, result, error = self._outcomes.popleft()
            if error is None:
                done.set_result(result)
            else:
                done.set_exception(error)


def _through(driver: str, do: _Do, *, at_once: bool = False) -> Open:
    @asynccontextmanager
    async def opened(database: Path, pragmas: Pragmas) -> AsyncIterator[Way]:
        thread = Thread(in_thread(driver, database, pragmas), do, at_once)
        try:
            yield thread
        finally:
            thread.end()

    return opened


reads = _through(THREAD_READS, read)
reads_told_at_once = _through(THREAD_READS, read, at_once=True)
writes = _through(THREAD_WRITES, write)
writes_told_at_once = _through(THREAD_WRITES, write, at_once=True)
session_reads = _through(THREAD_READS, read_with_session)
session_writes = _through(THREAD_WRITES, write_with_session)
