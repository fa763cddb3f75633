"""What the server processes that block others are doing.

https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW
"""

from __future__ import annotations

from typing import Any

from ...system.clock import time
from ..drivers.interface import Driver
from ..pool import ServerPool

HOLDER = r"""concat_ws(', ',
    'PID ' || a.pid || coalesce(' of ' || nullif(a.application_name, ''), '')
        || coalesce(' on ' || host(a.client_addr), ''),
    'in this transaction for ' || round(extract(epoch FROM clock_timestamp() - a.xact_start), 1)
        || ' s',
    a.state,
    'last SQL: ' || left(regexp_replace(a.query, '\s+', ' ', 'g'), 120))"""
"""SQL for a description of a row ``a`` of ``pg_stat_activity``."""

# The start of a wait is known since PostgreSQL 14. A PID of 0 stands for a prepared transaction:
# https://www.postgresql.org/docs/current/functions-info.html
_BLOCKERS = """
SELECT b.pid, {holder}, (
    SELECT max(extract(epoch FROM clock_timestamp() - (to_jsonb(l) ->> 'waitstart')::timestamptz))
    FROM pg_locks l WHERE l.pid = {pid} AND NOT l.granted)::float8
FROM pg_stat_activity own CROSS JOIN unnest(pg_blocking_pids({pid})) b (pid)
    LEFT JOIN pg_stat_activity a ON a.pid = b.pid
WHERE own.pid = {pid} AND own.usename = current_user
    AND own.application_name = current_setting('application_name')
"""
_CANCEL = """
SELECT pg_cancel_backend({pid}) FROM pg_locks l WHERE l.pid = {pid} AND NOT l.granted LIMIT 1
"""


def ask_for_holders(pool: ServerPool, asking: Any, process: int) -> tuple[float | None, str]:
    """Return how long a process has waited for a lock, and a description of the lock's holders.

    The time is None if the server does not know it. The text names tasks of this program, or what
    the server knows of others; it is empty if no lock is awaited. ``asking`` is in no transaction.
    """
    rows = pool.driver.rows(asking, _BLOCKERS.format(holder=HOLDER, pid=process))
    own = _tasks_by_process(pool)
    found = {
        holder: own.get(holder)
        or described
        or "a prepared transaction, or one that has ended since"
        for holder, described, _ in rows
    }
    waited = rows[0][2] if rows else None
    return None if waited is None else float(waited), "; ".join(found.values())


def _tasks_by_process(pool: ServerPool) -> dict[int, str]:
    """Describe the tasks that use the primary, through either engine of the database."""
    now, found = time.monotonic(), {}
    for engine in pool.engines:
        other = engine.pool
        assert isinstance(other, ServerPool)
        what = "a reader" if other.only_reads else "a writer"
        for process, permit in other.checked_out.by_process(other.driver):
            seconds = f"{now - permit.since:.1f} s"
            found[process] = f"{permit.describe_holder()}, which has held {what} for {seconds}"
    return found


def stop_waiting(driver: Driver, asking: Any, process: int) -> None:
    """Cancel the statement of a process if it is still waiting for a lock."""
    driver.rows(asking, _CANCEL.format(pid=process))
