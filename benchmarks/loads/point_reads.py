"""One row by its primary key, one connection checkout a read, as web requests do."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    bindparam,
    insert,
    select,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from .. import engines
from ..contenders import Concurrent, OneThread
from ..measuring import WrongAnswerError
from .base import Load

_ROWS = 100_000

_ITEMS = Table(
    "items",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False),
    Column("price", Integer, nullable=False),
)
_BY_ID = select(_ITEMS).where(_ITEMS.c.id == bindparam("id"))


def _row(key: int) -> tuple[int, str, int]:
    return key, f"item number {key}", 7 * key


def _fill(connection: Connection) -> None:
    _ITEMS.create(connection)
    names = _ITEMS.columns.keys()
    rows = [dict(zip(names, _row(key), strict=True)) for key in range(1, _ROWS + 1)]
    connection.execute(insert(_ITEMS), rows)


async def _read(engine: AsyncEngine, key: int) -> None:
    async with engine.connect() as connection:
        _check((await connection.execute(_BY_ID, {"id": key})).one(), key)


def _read_synchronously(engine: Engine, key: int) -> None:
    with engine.connect() as connection:
        _check(connection.execute(_BY_ID, {"id": key}).one(), key)


def _check(row: Row[Any], key: int) -> None:
    if tuple(row) != _row(key):
        raise WrongAnswerError("another row than the one asked for")


POINT_READS = Load(
    name="point-reads",
    title="Core select of one row by primary key, one checkout a read",
    unit="q/s",
    tasks=20,
    operations=4_000,
    rows=_ROWS,
    fill=_fill,
    contenders=(
        Concurrent("stock", engines.stock, _read),
        Concurrent("ReaderPool", engines.readers, _read),
        Concurrent("SQLitePool", engines.swap_in, _read),
        OneThread("synchronous", engines.synchronous, _read_synchronously),
    ),
)
