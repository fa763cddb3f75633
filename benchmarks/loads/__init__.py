"""The loads by name. A further load is one more module and one more line here."""

from __future__ import annotations

from collections.abc import Mapping

from .base import Loads
from .bulk_inserts import bulk_inserts
from .joins import joins
from .mixed import mixed
from .one_row_writes import one_row_writes, one_row_writes_full
from .point_reads import orm_get, point_reads
from .read_modify_write import read_modify_write
from .reuse import open_or_reuse, open_or_reuse_by_size
from .scaling import reads_by_tasks, turns, writes_by_tasks
from .social import social, social_counts

LOADS: Mapping[str, Loads] = {
    "point-reads": point_reads,
    "orm-get": orm_get,
    "join": joins,
    "one-row-writes": one_row_writes,
    "one-row-writes-full": one_row_writes_full,
    "read-modify-write": read_modify_write,
    "bulk-inserts": bulk_inserts,
    "mixed": mixed,
    "social": social,
    "social-counts": social_counts,
    "open-or-reuse": open_or_reuse,
    "open-or-reuse-by-size": open_or_reuse_by_size,
    "reads-by-tasks": reads_by_tasks,
    "writes-by-tasks": writes_by_tasks,
    "turns": turns,
}
