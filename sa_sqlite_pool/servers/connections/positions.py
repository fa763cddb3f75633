"""Ask servers how far they are in the primary's write-ahead log.

https://www.postgresql.org/docs/current/functions-admin.html
"""

from __future__ import annotations

from typing import Any

from ...freshness import Position, parse_token
from .drivers import Driver

# Where the log is inserted, not up to where it is flushed: what was committed without
# synchronous_commit can be read before it is flushed, whoever has committed it.
OF_COMMIT = "SELECT pg_current_wal_insert_lsn()::text"

# Where a replica is. On a replica that was promoted, where it is as a primary.
_OF_READS = (
    "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() "
    "ELSE pg_current_wal_insert_lsn() END::text"
)

_PAGE_BYTES = 8192  # XLOG_BLCKSZ
_PAGE_HEADER_BYTES = 24  # SizeOfXLogShortPHD in src/include/access/xlog_internal.h


def position_of_commit(driver: Driver, connection: Any) -> Position:
    """Return a position that a reader must have reached to see the last commit. In a greenlet."""
    return end_of_record(parse_token(driver.value(connection, OF_COMMIT)))


def position_of_reads(driver: Driver, connection: Any) -> Position:
    """Return what transactions that begin now on this server will see. In a greenlet."""
    found = driver.value(connection, _OF_READS)
    return parse_token(found) if found else 0


def end_of_record(inserted: Position) -> Position:
    """Return where the last record ends, for the place where the next one will begin.

    A page begins with a header, which replicas come to with the next record only. Of a page that is
    the first of a segment, whose header is longer, this is not known: it is left as it is.
    """
    if inserted % _PAGE_BYTES == _PAGE_HEADER_BYTES:
        return inserted - _PAGE_HEADER_BYTES
    return inserted
