"""SELECT, then UPDATE with the value read, in one transaction: which contenders lose updates?

Fifty tasks share a few rows, so two of them often read the same row.
"""

from __future__ import annotations

from sqlalchemy import bindparam, select, update

from ..ways import catalogue
from ..ways.contenders import STOCK, Contender, Part
from ..ways.steps import Run, Statement, Steps, check_count
from .base import Load, Plan
from .one_row_writes import COUNTERS, fill, moved

_ROWS = 20

_READ = Statement.of(select(COUNTERS.c.v).where(COUNTERS.c.id == bindparam("key")))
_WRITE = Statement.of(
    update(COUNTERS).where(COUNTERS.c.id == bindparam("key")).values({"v": bindparam("new")})
)


def _add_one(key: int) -> Steps:
    [(value,)] = yield Run(_READ, {"key": key})
    check_count((yield Run(_WRITE, {"key": key, "new": value + 1})))


_PART = Part(
    name="transactions",
    title="SELECT of a value and UPDATE with the next one, in a transaction; 20 rows",
    unit="tx/s",
    tasks=50,
    rows=_ROWS,
    operation=_add_one,
    writes=True,
)

_CONTENDERS: tuple[Contender, ...] = (
    catalogue.stock,
    catalogue.stock_immediate,
    catalogue.writer,
    catalogue.swap_in_for_writers,
    catalogue.blocks,
    *catalogue.WRITING_CLOSURES,
    catalogue.synchronous_immediate,
    catalogue.in_threads_immediate,
    *catalogue.DRIVERS,
)


def loads(_plan: Plan) -> list[Load]:
    """Return the load. Stock sends no BEGIN before a SELECT and may lose updates: see its books."""
    may_lose = frozenset({STOCK})
    return [Load("read-modify-write", (_PART,), fill, _CONTENDERS, moved, may_lose=may_lose)]
