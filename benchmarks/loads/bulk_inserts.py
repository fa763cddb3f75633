"""A thousand rows in one ``executemany`` and one transaction."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import bindparam, insert

from ..databases import items
from ..databases.files import ask
from ..ways import catalogue
from ..ways.contenders import Part
from ..ways.steps import Run, Statement, Steps
from .base import Load, Plan

_ROWS = 1_000

_INSERT = Statement.of(
    insert(items.ITEMS).values({"name": bindparam("new_name"), "price": bindparam("new_price")})
)
_NEW = [{"new_name": f"new item {number}", "new_price": number} for number in range(_ROWS)]


def _insert(_key: int) -> Steps:
    yield Run(_INSERT, _NEW)


def _transactions(database: Path) -> int:
    count: int = ask(database, f"SELECT count(*) FROM items WHERE id > {items.ROWS}")
    return count // _ROWS


_PART = Part(
    name="inserts",
    title=f"INSERT of {_ROWS:,} rows in a transaction",
    unit="tx/s",
    tasks=10,
    rows=1,
    operation=_insert,
    writes=True,
)


def loads(_plan: Plan) -> list[Load]:
    """Return the load, in which a thousand rows share the cost of a hop."""
    return [Load("bulk-inserts", (_PART,), items.fill, catalogue.WRITING, _transactions)]
