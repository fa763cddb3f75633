"""Ask servers how far they are in the primary's write-ahead log.

https://www.postgresql.org/docs/current/functions-admin.html
"""

from __future__ import annotations

from typing import Any

from ...freshness import Position, parse_token
from .drivers import Driver

# Up to where a commit of the same connection that has returned is in the log. Without
# synchronous_commit COMMIT returns before its record is flushed, and the flushed position may be
# before it. Then the inserted one is right, which others' work in progress moves on.
OF_COMMIT = (
    "SELECT CASE current_setting('synchronous_commit') WHEN 'off' THEN pg_current_wal_insert_lsn() "
    "ELSE pg_current_wal_flush_lsn() END::text"
)

# Where a replica is. On a replica that was promoted, where it is as a primary.
_OF_READS = (
    "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() "
    "ELSE pg_current_wal_insert_lsn() END::text"
)


def position_of_commit(driver: Driver, connection: Any) -> Position:
    """Return a position that a reader must have reached to see the last commit. In a greenlet."""
    return parse_token(driver.value(connection, OF_COMMIT))


def position_of_reads(driver: Driver, connection: Any) -> Position:
    """Return what transactions that begin now on this server will see. In a greenlet."""
    found = driver.value(connection, _OF_READS)
    return parse_token(found) if found else 0
