"""One UPDATE of one row, each in a separate transaction, and each accounted for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    bindparam,
    insert,
    literal_column,
    update,
)

from ..databases.files import total
from ..ways import catalogue
from ..ways.contenders import Part
from ..ways.steps import Run, Statement, Steps, check_count
from .base import Load, Plan

ROWS = 10_000

COUNTERS = Table(
    "t",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("v", Integer, nullable=False),
)
ADD_ONE = (
    update(COUNTERS)
    .where(COUNTERS.c.id == bindparam("key"))
    .values({"v": COUNTERS.c.v + literal_column("1")})
)
_ADD_ONE = Statement.of(ADD_ONE)


def fill(connection: Connection) -> None:
    COUNTERS.create(connection)
    connection.execute(insert(COUNTERS), [{"id": key, "v": 0} for key in range(1, ROWS + 1)])


def write(key: int) -> Steps:
    """Update one row."""
    check_count((yield Run(_ADD_ONE, {"key": key})))


def moved(database: Path) -> int:
    """Return the amount by which the counters have grown."""
    return total(database, "v", "t")


WRITES = Part(
    name="writes",
    title="UPDATE of one row in a transaction",
    unit="tx/s",
    tasks=50,
    rows=ROWS,
    operation=write,
    writes=True,
)


def normal(_plan: Plan) -> list[Load]:
    """Return the load with commits that do not wait for the disk."""
    contenders = (*catalogue.WRITING, *catalogue.OTHER_STOCK_POOLS)
    return [Load("one-row-writes", (WRITES,), fill, contenders, moved)]


def through_sessions(_plan: Plan) -> list[Load]:
    """Return the load with the same UPDATE in the transaction of an ORM session."""
    writes = replace(WRITES, title="UPDATE of one row in the transaction of an ORM session")
    return [Load("session-writes", (writes,), fill, catalogue.WRITING_SESSIONS, moved)]


def full(_plan: Plan) -> list[Load]:
    """Return the load with commits that wait for the disk."""
    contenders = (*catalogue.WRITING, catalogue.stock_as_it_comes)
    return [
        Load(
            "one-row-writes-full",
            (WRITES,),
            fill,
            contenders,
            moved,
            synchronous="FULL",
        )
    ]
