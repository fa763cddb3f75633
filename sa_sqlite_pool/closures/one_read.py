"""Run a closure that reads, in one hop with the BEGIN and the end of its transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.pool import PoolProxiedConnection

from ..driver.executor import Executor
from ..execution.jobs import OutOfTime
from ..sqlite.driver_errors import dbapi
from ..sqlite.shared_hooks import watch_progress
from ..transactions.locks import NotBegun, Patience, is_lock
from .thread_connection import ThreadConnection

T = TypeVar("T")


async def read_here(
    executor: Executor,
    fairy: PoolProxiedConnection,
    body: Callable[[ThreadConnection], T],
    name: str,
) -> T:
    """Run ``body`` in one snapshot; the shared thread remembers a slow one by ``name``.

    A cancellation stops it, and is raised when its thread has finished with the connection.
    """
    transaction, worker = executor.transaction, executor.worker
    patience = Patience(executor.rules, transaction.checkout, writing=False)
    while True:
        transaction.note("BEGIN")
        while not transaction.begin_read():
            await transaction.until_no_gap()
        try:
            return await worker.run(lambda sqlite: _read(sqlite, executor, fairy, body), text=name)
        except NotBegun as not_begun:
            await patience.wait(not_begun.error)
        except OutOfTime:  # it was ended before it began
            transaction.assert_not_too_old()
            raise
        finally:
            transaction.take_loss()
            transaction.too_old = None
            transaction.after_work()


def _read(
    sqlite: sqlite3.Connection,
    executor: Executor,
    fairy: PoolProxiedConnection,
    body: Callable[[ThreadConnection], T],
) -> T:
    _begin(sqlite, executor)
    here = ThreadConnection(
        *(sqlite, executor, fairy),
        cancelled=lambda: False,  # worker.must_stop tells of a cancelled job
        on_commit=lambda: None,
        alone=True,
    )
    try:
        return body(here)
    finally:
        here.end()
        watch_progress(sqlite, None, 0)
        if sqlite.in_transaction:
            sqlite.execute("ROLLBACK")
        sqlite.isolation_level = None  # the function may have set another


def _begin(sqlite: sqlite3.Connection, executor: Executor) -> None:
    sqlite.execute("BEGIN")
    if executor.rules.readers_in_the_way is None:
        return
    try:  # without WAL, the first read takes the lock, and may find it taken
        with executor.policy.authorizer.aside():
            sqlite.execute("PRAGMA schema_version").fetchone()
    except dbapi.OperationalError as error:
        sqlite.execute("ROLLBACK")
        if is_lock(error):
            raise NotBegun(error) from error
        raise
