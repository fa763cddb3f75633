"""Reads that begin and end at once, on the event loop, without a checkout by SQLAlchemy."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from ..compat.pool_records import is_current
from ..driver.adapter import SQLiteConnection
from ..driver.executor import Executor
from ..execution.loop_budget import LoopBudget
from ..execution.replies import Execute, Parameters, Reply
from ..opening.connector import Connector
from ..settings import NotGiven
from ..sqlite.statements import Kind
from ..system.clock import time
from ..turn.fair_semaphore import FairSemaphore
from .resting import IdleConnections

perf_counter = time.perf_counter


class ReadsAtOnce:
    """The part of a pool that reads without a checkout.

    A checkout records a holder, for messages and for :meth:`SQLiteDatabase.close`, and prepares a
    connection for a transaction of any length. A read that ends before anything else runs on its
    event loop needs none of that. It needs a permit, so that other loops never count on its
    connection, and a connection at rest.
    """

    _connector: Connector
    _pool: IdleConnections
    _uses_loop: bool
    _disposed: bool

    if TYPE_CHECKING:  # defined by the pool

        @cached_property
        def _line(self) -> FairSemaphore: ...

        def _close_idle(self) -> None: ...

    @property
    def reads_on_loop(self) -> bool:
        """True if statements may run on the event loop."""
        return self._uses_loop

    def read_at_once(
        self,
        budget: LoopBudget,
        sql: str,
        parameters: Parameters,
        execute: Execute,
        timeout: float | NotGiven | None,
    ) -> Reply | None:
        """Read now, in a separate snapshot; ``budget`` is the loop's, and has admitted the task.

        Return None, without any effect, if something has to be awaited first: a connection at
        rest, the end of a gap in the log, or a thread. Waiting tasks are never overtaken.
        """
        line = self._line
        if self._connector.refusal is not None:
            return None
        permit = line.acquire_for_a_moment()
        if permit is None:
            return None
        record = None
        try:
            record = self._pool.take()
            if record is None:
                return None
            connection = record.dbapi_connection
            if not isinstance(connection, SQLiteConnection) or not is_current(record, self):
                return None
            began = perf_counter()
            reply = _read_alone(connection.executor, sql, parameters, execute, timeout)
            budget.note_work(perf_counter() - began)
            return reply
        finally:
            if record is not None:
                self._pool.put_nowait(record)
                if self._disposed:  # by another thread, meanwhile; see TakesBack._put_back()
                    self._close_idle()
            line.release_after_a_moment(permit)


def _read_alone(
    executor: Executor,
    sql: str,
    parameters: Parameters,
    execute: Execute,
    timeout: float | NotGiven | None,
) -> Reply | None:
    """Execute a read that is known to be short, inline and in a separate transaction.

    The reader has been taken from its pool for this read only, and is not checked out. Return
    None if the read must be executed in another way, for whatever reason; nothing has happened
    then. A reader's authorizer refuses writes, and the read calls no function that might hide one.

    It needs no BEGIN: "an automatically started transaction is committed when the last SQL
    statement finishes" (https://www.sqlite.org/lang_transaction.html). Nor does it enter the
    snapshots of the file: nothing else on this event loop can run between its begin and its end,
    so no gap of this loop finds it running. A gap that another loop announces meanwhile treats it
    like a reader of another process: SQLite answers "busy" to a checkpoint that runs in these
    microseconds, and the keeper retries it.
    """
    worker, policy, rules = executor.worker, executor.policy, executor.rules
    if isinstance(timeout, NotGiven):
        timeout = executor.statement_timeout
    facts, connection = executor.facts.of(sql), worker.idle_connection
    if (
        connection is None
        or not executor.ready
        or executor.authorizer.busy_timeout
        or not policy.is_inline(facts, many=False, timeout=timeout)
        or (rules.enters_snapshots and rules.snapshots.in_gap)
    ):
        return None
    try:
        return policy.run_inline(worker, facts, Kind.READ, execute, sql, parameters)
    except Exception:  # the read is retried by SQLAlchemy, which raises its own error
        return None
