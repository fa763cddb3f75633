"""One UPDATE of one row, each in a transaction of its own, and every one accounted for."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    bindparam,
    insert,
    update,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from .. import engines
from ..contenders import Concurrent, OneThread
from ..files import total
from ..measuring import WrongAnswerError
from .base import Load

ROWS = 10_000

_COUNTERS = Table(
    "t",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("v", Integer, nullable=False),
)
ADD_ONE = (
    update(_COUNTERS).where(_COUNTERS.c.id == bindparam("key")).values({"v": _COUNTERS.c.v + 1})
)


def fill(connection: Connection) -> None:
    _COUNTERS.create(connection)
    connection.execute(insert(_COUNTERS), [{"id": key, "v": 0} for key in range(1, ROWS + 1)])


async def _write(engine: AsyncEngine, key: int) -> None:
    async with engine.begin() as connection:
        check((await connection.execute(ADD_ONE, {"key": key})).rowcount)


def _write_synchronously(engine: Engine, key: int) -> None:
    with engine.begin() as connection:
        check(connection.execute(ADD_ONE, {"key": key}).rowcount)


def check(rowcount: int) -> None:
    if rowcount != 1:
        raise WrongAnswerError(f"{rowcount} rows updated")


def moved(database: Path) -> int:
    """By how much the counters have grown."""
    return total(database, "v", "t")


ONE_ROW_WRITES = Load(
    name="one-row-writes",
    title="UPDATE of one row in a transaction",
    unit="tx/s",
    tasks=50,
    operations=3_000,
    rows=ROWS,
    fill=fill,
    contenders=(
        Concurrent("stock", engines.stock, _write),
        Concurrent("WriterPool", engines.writer, _write),
        Concurrent("SQLitePool", engines.swap_in, _write),
        OneThread("synchronous", engines.synchronous, _write_synchronously),
    ),
    effects=moved,
)
