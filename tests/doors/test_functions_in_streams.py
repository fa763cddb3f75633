"""Functions that read for a later row of a stream, at which functions that write are refused."""

from __future__ import annotations

import sqlite3
import weakref
from typing import Any

import pytest
from sqlalchemy import text

from sa_sqlite_pool import SQLitePool, WriterPool
from tests.conftest import MakeEngine
from tests.helpers import create_items

READS = {
    "an R-tree": ("CREATE VIRTUAL TABLE other USING rtree(id, low, high)", "SELECT * FROM other"),
    "a full-text table": (
        "CREATE VIRTUAL TABLE other USING fts5(body)",
        "SELECT * FROM other WHERE other MATCH 'word'",
    ),
    "JSON": ("CREATE TABLE other (id)", "SELECT * FROM json_each('[1]')"),
    "the schema": ("CREATE TABLE other (id)", "SELECT * FROM pragma_table_info('other')"),
}


@pytest.mark.parametrize("pool", [None, SQLitePool, WriterPool])
@pytest.mark.parametrize("read", READS)
async def test_what_it_reads_first_then(
    make_engine: MakeEngine, pool: type | None, read: str
) -> None:
    """A function may be the first to name a virtual table, which connects that table."""
    create, query = READS[read]

    class Connection(sqlite3.Connection):
        def __init__(self, *args: Any, **kw: Any) -> None:
            super().__init__(*args, **kw)
            me = weakref.ref(self)

            def looks(number: int) -> int:
                if number > 1 and (connection := me()) is not None:
                    connection.execute(query).fetchall()
                return number

            self.create_function("looks", 1, looks)

    other = make_engine(SQLitePool)
    await create_items(other)
    connect_args = {"factory": Connection}
    engine = make_engine(pool, isolation_level="AUTOCOMMIT", connect_args=connect_args)
    looks = text("SELECT looks(id) FROM items").execution_options(yield_per=1)
    for _ in range(2):  # the second time, for a table created meanwhile
        async with other.begin() as elsewhere:
            await elsewhere.execute(text("DROP TABLE IF EXISTS other"))
            await elsewhere.execute(text(create))
        async with engine.connect() as connection:
            assert await (await connection.stream_scalars(looks)).all() == [1, 2, 3]
