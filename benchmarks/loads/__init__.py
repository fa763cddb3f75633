"""The loads by name. Adding a load takes one module and one line here."""

from __future__ import annotations

from collections.abc import Mapping

from . import (
    bulk_inserts,
    joins,
    mixed,
    one_row_writes,
    open_loop,
    point_reads,
    read_modify_write,
    reuse,
    scaling,
    social,
)
from .base import Loads

LOADS: Mapping[str, Loads] = {
    "point-reads": point_reads.in_core,
    "orm-get": point_reads.through_sessions,
    "join": joins.loads,
    "one-row-writes": one_row_writes.normal,
    "one-row-writes-full": one_row_writes.full,
    "session-writes": one_row_writes.through_sessions,
    "read-modify-write": read_modify_write.loads,
    "bulk-inserts": bulk_inserts.loads,
    "mixed": mixed.loads,
    open_loop.OPEN_LOOP: open_loop.loads,
    "social": social.joined,
    "social-counts": social.counted,
    reuse.OPEN_OR_REUSE: reuse.by_schema,
    reuse.BY_SIZE: reuse.by_size,
    scaling.READS_BY_TASKS: scaling.reads_by_tasks,
    scaling.WRITES_BY_TASKS: scaling.writes_by_tasks,
    scaling.TURNS: scaling.turns,
}
