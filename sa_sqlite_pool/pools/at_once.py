"""Reads that begin and end at once, on the event loop, without a checkout of SQLAlchemy's."""

from __future__ import annotations

from typing import Any

from sqlalchemy.util.queue import Empty

from ..compat.pool_records import is_current
from ..driver.adapter import SQLiteConnection
from ..driver.connector import Connector
from ..execution.loop_budget import LoopBudget
from ..execution.replies import Execute, Parameters, Reply
from ..settings import NotGiven
from ..turn.fair_semaphore import FairSemaphore


class ReadsAtOnce:
    """The part of a pool that reads without a checkout.

    A checkout records a holder, for messages and for :meth:`SQLiteDatabase.close`, and prepares a
    connection for a transaction of any length. A read that has ended before anything else of its
    event loop runs needs none of that: a permit, so that other loops find as many connections as
    there are, and a connection at rest.
    """

    _connector: Connector
    _line: FairSemaphore
    _pool: Any
    _uses_loop: bool
    _disposed: bool

    def _close_idle(self) -> None:
        raise NotImplementedError

    def read_at_once(
        self,
        budget: LoopBudget,
        sql: str,
        parameters: Parameters,
        execute: Execute,
        timeout: float | NotGiven | None,
    ) -> Reply | None:
        """Read now, in a snapshot of its own; ``budget`` is the loop's, and has let the task in.

        Return None, at no cost, if something has to be awaited first: a connection that is at rest,
        a gap in the log, or a thread. Waiting tasks are never overtaken.
        """
        connector, line = self._connector, self._line
        if connector.refusal is not None or not connector.knows_file or self._disposed:
            return None
        permit = line.acquire_nowait()
        if permit is None:
            return None
        try:
            try:
                record = self._pool.get_nowait()
            except Empty:
                return None
            try:
                connection = record.dbapi_connection
                if not isinstance(connection, SQLiteConnection) or not is_current(record, self):
                    return None
                budget.begin_work(record)
                reply = connection.executor.read_alone(sql, parameters, execute, timeout)
                budget.end_work(record)
                return reply
            finally:
                # As in FairPool._put_back(): another thread may dispose of the pool.
                self._pool.put_nowait(record)
                if self._disposed:
                    self._close_idle()
        finally:
            line.release(permit)
