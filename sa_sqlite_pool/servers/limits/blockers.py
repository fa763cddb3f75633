"""What processes of the server do that others wait for.

https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW
"""

from __future__ import annotations

from typing import Any, final

from ...system.clock import time
from ..pool import ServerPool
from .running import Running

HOLDER = r"""concat_ws(', ',
    'PID ' || a.pid || coalesce(' of ' || nullif(a.application_name, ''), '')
        || coalesce(' on ' || host(a.client_addr), ''),
    'in this transaction for ' || round(extract(epoch FROM clock_timestamp() - a.xact_start), 1)
        || ' s',
    a.state,
    'last SQL: ' || left(regexp_replace(a.query, '\s+', ' ', 'g'), 120))"""
"""What is known of a row ``a`` of ``pg_stat_activity``, in SQL."""

# How long it has waited is known since PostgreSQL 14. A process 0 is a prepared transaction:
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


@final
class Blockers:
    """Finds out what statements of one pool wait for, on a connection of its own."""

    def __init__(self, pool: ServerPool) -> None:
        self._pool = pool

    def find(self, running: Running, seconds: float) -> float | None:
        """Return how long a statement has waited for a lock; stop it after ``seconds``.

        What holds the lock is noted in it then. None if its connection is gone. In a greenlet.
        """
        connection = self._pool.connection_of(running.permit)
        driver = self._pool.driver
        if connection is None or driver.is_broken(connection):
            return None
        pid, began = driver.process_id(connection), running.began
        with self._pool.another_connection() as asking:
            rows = driver.rows(asking, _BLOCKERS.format(holder=HOLDER, pid=pid))
            if not rows:
                return 0.0
            waited = rows[0][2]
            waited = time.monotonic() - began if waited is None else float(waited)
            if waited >= seconds:
                running.blocked_by, running.seconds_blocked = self._describe(rows), waited
                driver.rows(asking, _CANCEL.format(pid=pid))
        return waited

    def _describe(self, rows: list[tuple[Any, ...]]) -> str:
        """Return what has the lock: tasks of this process, or what the server knows of others."""
        own, now = self._pool.permits_by_process(), time.monotonic()
        found = {}
        for pid, described, _ in rows:
            if pid in own:
                found[pid] = own[pid].describe(now)
            else:
                found[pid] = described or "a prepared transaction, or one that has ended since"
        return "; ".join(found.values())
