"""One row by its primary key, with one connection or session per read, as in web requests."""

from __future__ import annotations

from ..databases import items
from ..ways import catalogue
from ..ways.contenders import Part
from .base import Load, Plan

TASKS = 20

READS = Part(
    name="reads",
    title="Core select of one row by primary key, one checkout a read",
    unit="q/s",
    tasks=TASKS,
    rows=items.ROWS,
    operation=items.read,
)
_GETS = Part(
    name="gets",
    title="session.get() of one object, one session a read",
    unit="q/s",
    tasks=TASKS,
    rows=items.ROWS,
    operation=items.get,
)


def in_core(_plan: Plan) -> list[Load]:
    """Return the load in Core, and without SQLAlchemy."""
    contenders = (*catalogue.READING, catalogue.prepared_reads, *catalogue.OTHER_STOCK_POOLS)
    return [Load("point-reads", (READS,), items.fill, contenders)]


def through_sessions(_plan: Plan) -> list[Load]:
    """Return the load through ORM sessions."""
    return [Load("orm-get", (_GETS,), items.fill, catalogue.GETTING)]
