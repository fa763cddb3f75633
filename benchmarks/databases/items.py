"""A table of things to read, whose every row is known."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    select,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped

from ..ways.steps import Get, Run, Statement, Steps, check_rows

ROWS = 100_000

METADATA = MetaData()
ITEMS = Table(
    "items",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False),
    Column("price", Integer, nullable=False),
)
_FILL = text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT :rows) "
    "INSERT INTO items SELECT i, 'item number ' || i, 7 * i FROM n"
)
_BY_ID = Statement.of(select(ITEMS).where(ITEMS.c.id == bindparam("key")))


class _Base(DeclarativeBase):
    metadata = METADATA


class Item(_Base):
    """The same table for the ORM."""

    __table__ = ITEMS

    id: Mapped[int]
    name: Mapped[str]
    price: Mapped[int]


def row(key: int) -> tuple[int, str, int]:
    """Return the row of ``key``."""
    return key, f"item number {key}", 7 * key


def fill(connection: Connection) -> None:
    ITEMS.create(connection)
    connection.execute(_FILL, {"rows": ROWS})


def read(key: int) -> Steps:
    """Read one row by its primary key."""
    check_rows((yield Run(_BY_ID, {"key": key})), [row(key)])


def get(key: int) -> Steps:
    """Read the same row as an object."""
    item = yield Get(Item, key)
    check_rows([(item.id, item.name, item.price)], [row(key)])
