"""Query how far servers have advanced in the primary's write-ahead log.

https://www.postgresql.org/docs/current/functions-admin.html
"""

from __future__ import annotations

from typing import Any

from ...freshness import Position, parse_token
from ..drivers.interface import Driver

# The insert position, not the flush position: what any connection has committed without
# synchronous_commit can be read before it is flushed.
OF_COMMIT = """
SELECT pg_current_wal_insert_lsn() || ' ' || pg_size_bytes(current_setting('wal_segment_size'))
"""

# The replay position of a replica. After its promotion, its insert position as a primary.
_OF_READS = (
    "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() "
    "ELSE pg_current_wal_insert_lsn() END::text"
)

_PAGE_BYTES = 8192  # XLOG_BLCKSZ
# SizeOfXLogShortPHD and SizeOfXLogLongPHD in src/include/access/xlog_internal.h.
_HEADER_BYTES, _HEADER_BYTES_OF_SEGMENT = 24, 40


def position_of_commit(driver: Driver, connection: Any) -> Position:
    """Return a position at which a reader sees the last commit. Must run in a greenlet."""
    inserted, segment_bytes = driver.rows(connection, OF_COMMIT)[0][0].split()
    return end_of_record(parse_token(inserted), int(segment_bytes))


def position_of_reads(driver: Driver, connection: Any) -> Position:
    """Return the position that new transactions on a server will see. Must run in a greenlet."""
    found = driver.rows(connection, _OF_READS)[0][0]
    return parse_token(found) if found else 0


def end_of_record(inserted: Position, segment_bytes: int) -> Position:
    """Return the end of the last record, given the place where the next one will begin.

    A page begins with a header, which replicas reach only with the next record. The header of the
    first page of a segment is longer.
    """
    if inserted % segment_bytes == _HEADER_BYTES_OF_SEGMENT:
        return inserted - _HEADER_BYTES_OF_SEGMENT
    if inserted % _PAGE_BYTES == _HEADER_BYTES:
        return inserted - _HEADER_BYTES
    return inserted
