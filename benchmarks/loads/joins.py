"""A hundred rows of two tables: the cost of fetching."""

from __future__ import annotations

from sqlalchemy import Column, Connection, ForeignKey, Integer, Table, bindparam, select, text

from ..databases import items
from ..ways import catalogue
from ..ways.contenders import Part
from ..ways.steps import Run, Statement, Steps, check_rows
from .base import Load, Plan

_ORDERS = 1_000
_LINES_AN_ORDER = 100

_LINES = Table(
    "lines",
    items.METADATA,
    Column("id", Integer, primary_key=True),
    Column("order_id", Integer, nullable=False, index=True),
    Column("item_id", ForeignKey("items.id"), nullable=False),
)
_FILL = text(
    "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n LIMIT :lines) "
    "INSERT INTO lines SELECT i + 1, i % :orders + 1, i + 1 FROM n"
)
_BY_ORDER = Statement.of(
    select(_LINES.c.id, items.ITEMS.c.name, items.ITEMS.c.price)
    .join(items.ITEMS, _LINES.c.item_id == items.ITEMS.c.id)
    .where(_LINES.c.order_id == bindparam("key"))
    .order_by(_LINES.c.id)
)


def _fill(connection: Connection) -> None:
    items.fill(connection)
    _LINES.create(connection)
    connection.execute(_FILL, {"lines": _ORDERS * _LINES_AN_ORDER, "orders": _ORDERS})


def _read(key: int) -> Steps:
    expected = [items.row(line) for line in range(key, items.ROWS + 1, _ORDERS)]
    check_rows((yield Run(_BY_ORDER, {"key": key})), expected)


_PART = Part(
    name="reads",
    title=f"Core select of {_LINES_AN_ORDER} rows of two tables, one checkout a read",
    unit="q/s",
    tasks=20,
    rows=_ORDERS,
    operation=_read,
)


def loads(_plan: Plan) -> list[Load]:
    return [Load("join", (_PART,), _fill, catalogue.READING)]
