"""The day of a web application: short reads, short writes, and a slow report."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from sqlalchemy import Connection, text

from ..databases import items
from ..ways import catalogue
from ..ways.contenders import Contender, Part
from ..ways.steps import Run, Statement, Steps, check_rows
from .base import Load, Plan
from .one_row_writes import WRITES, moved
from .one_row_writes import fill as fill_counters
from .point_reads import READS

_TIMES = 20
_TIMES_QUICK = 1
"""The number of passes over the items in a scan, which take 250 ms, and almost no time."""

_RUN_TIMES = 5

_SCAN = Statement.of(
    text(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT :times) "
        "SELECT sum(price * i) FROM items CROSS JOIN n"
    )
)
_PRICES = 7 * items.ROWS * (items.ROWS + 1) // 2


def scan(times: int, _key: int) -> Steps:
    """Scan all items ``times`` times."""
    expected = _PRICES * times * (times + 1) // 2
    check_rows((yield Run(_SCAN, {"times": times})), [(expected,)])


def fill(connection: Connection) -> None:
    """Create items to read, and counters to write."""
    items.fill(connection)
    fill_counters(connection)


READS_AND_WRITES = (
    replace(READS, title="20 tasks that read a row, beside 10 that write and a scan"),
    replace(WRITES, tasks=10, title="10 tasks that write a row, beside 20 that read and a scan"),
)
SCANS = Part(
    name="scans",
    title="one scan at a time, beside 20 tasks that read and 10 that write",
    unit="scans/s",
    tasks=1,
    rows=1,
    operation=partial(scan, _TIMES),
)

_CONTENDERS: tuple[Contender, ...] = (
    catalogue.stock,
    catalogue.swap_in,
    catalogue.both_engines,
    catalogue.blocks,
    catalogue.closures,
    catalogue.in_threads,
    catalogue.pooled,
    catalogue.stock_as_it_comes,
)


def loads(plan: Plan) -> list[Load]:
    times = _TIMES_QUICK if plan.quick else _TIMES
    parts = (*READS_AND_WRITES, replace(SCANS, operation=partial(scan, times)))
    return [Load("mixed", parts, fill, _CONTENDERS, moved, times=_RUN_TIMES)]
