"""The cost of opening a connection for each read instead of keeping one open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    bindparam,
    select,
    text,
)

from ..databases import items
from ..report.results import Point
from ..ways import catalogue
from ..ways.contenders import Contender, Part
from ..ways.steps import Run, Statement, Steps, check_rows
from .base import Load, Plan
from .point_reads import READS

OPEN_OR_REUSE = "open-or-reuse"
BY_SIZE = "open-or-reuse-by-size"

_LARGE_MIB = 2_048
_ROW_BYTES = 1_000
_ROWS_A_MIB = 1_024
"""Four of these rows fill a page of 4 KiB."""

_WIDE = Table(
    "wide",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)
_FILL_WIDE = text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT :rows) "
    "INSERT INTO wide SELECT i, zeroblob(:bytes) FROM n"
)
_BY_ID = Statement.of(select(_WIDE).where(_WIDE.c.id == bindparam("key")))
_BODY = bytes(_ROW_BYTES)

_ONE_TASK = replace(READS, title="Core select of one row by primary key, one task", tasks=1)

_CONTENDERS: tuple[Contender, ...] = (
    catalogue.stock_with_null_pool,
    catalogue.stock,
    catalogue.aiosqlite_connect_each,
    catalogue.aiosqlite,
    catalogue.swap_in,
    catalogue.synchronous_with_null_pool,
    catalogue.synchronous,
    catalogue.in_threads,
)


def by_schema(plan: Plan) -> list[Load]:
    """Return the loads by schema: SQLite parses all of it when a connection first needs it."""
    objects = (10, 100) if plan.quick else (10, 100, 1_000)
    points = [Point(OPEN_OR_REUSE, "schema objects", number) for number in objects]
    return [_load(_ONE_TASK, partial(_fill_schema, point.x), point) for point in points]


def by_size(plan: Plan) -> list[Load]:
    """Return the loads by file size: a new connection starts with an empty page cache."""
    sizes = (1,) if plan.quick else (1, 100, _LARGE_MIB) if plan.large else (1, 100)
    return [
        _load(
            replace(_ONE_TASK, rows=mib * _ROWS_A_MIB, operation=_read_wide),
            partial(_fill_wide, mib * _ROWS_A_MIB),
            Point(BY_SIZE, "MiB", mib),
        )
        for mib in sizes
    ]


def _load(part: Part, fill: Callable[[Connection], None], point: Point) -> Load:
    name = f"{point.series} {point.x}"
    return Load(name, (part,), fill, _CONTENDERS, point=point, shared=True)


def _fill_schema(objects: int, connection: Connection) -> None:
    """Create ``objects`` schema objects; a table and its index count as two."""
    items.fill(connection)
    for number in range(objects // 2):
        connection.exec_driver_sql(
            f"CREATE TABLE t{number} (id INTEGER PRIMARY KEY, name TEXT NOT NULL, at INTEGER)"
        )
        connection.exec_driver_sql(f"CREATE INDEX i{number} ON t{number} (name, at)")


def _fill_wide(rows: int, connection: Connection) -> None:
    _WIDE.create(connection)
    connection.execute(_FILL_WIDE, {"rows": rows, "bytes": _ROW_BYTES})


def _read_wide(key: int) -> Steps:
    check_rows((yield Run(_BY_ID, {"key": key})), [(key, _BODY)])
