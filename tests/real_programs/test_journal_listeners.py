"""PRAGMAs about journal and locks in a connect listener: respected, or refused with a reason."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from .doors import Application, Door
from .listeners import executing
from .parameters import first

TASKS = 6

# A setting that excludes others is refused, naming the alternative; or it works for all tasks.
DOUBTFUL = [
    "PRAGMA journal_mode = DELETE",
    "PRAGMA journal_mode = MEMORY",
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA journal_mode = TRUNCATE",
    "PRAGMA journal_mode = PERSIST",
    "PRAGMA journal_mode = OFF",
    "PRAGMA main.journal_mode = delete",
    "PRAGMA journal_mode(DELETE)",
]
# These are harmless, and work.
INNOCENT = [
    "PRAGMA journal_mode = WAL",
    "PRAGMA locking_mode = NORMAL",
    "PRAGMA query_only = OFF",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA mmap_size = 1048576",
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA optimize = 0x10002",
    "PRAGMA auto_vacuum = INCREMENTAL",
    "PRAGMA journal_mode=wal;",
    "PRAGMA journal_mode(WAL)",
    "PRAGMA journal_mode",
    "PRAGMA locking_mode",
    "PRAGMA synchronous = FULL",
    "PRAGMA cache_size = -8000",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA wal_autocheckpoint = 500",
    "PRAGMA journal_size_limit = 1000000",
    "PRAGMA recursive_triggers = ON",
    "PRAGMA case_sensitive_like = ON",
    "PRAGMA secure_delete = ON",
    "PRAGMA optimize",
    "PRAGMA analysis_limit = 400",
    "PRAGMA encoding = 'UTF-8'",
    "PRAGMA page_size = 4096",
    "PRAGMA threads = 2",
    "PRAGMA hard_heap_limit = 0",
]


async def busy(app: Application) -> list[BaseException]:
    """Run tasks that write and read at the same time; return the errors."""

    async def work(number: int) -> None:
        async with app.transaction() as session:
            await session.execute(text("INSERT INTO t VALUES (:x)"), {"x": number})
        async with app.session() as session:
            await session.scalar(text("SELECT count(*) FROM t"))

    results = await asyncio.gather(*(work(n) for n in range(TASKS)), return_exceptions=True)
    return [result for result in results if result is not None]


@pytest.mark.parametrize("statement", first(9, INNOCENT))
async def test_what_harms_nobody_works(door: Door, statement: str) -> None:
    """All tasks write and read."""
    if door.stock and "optimize =" in statement:
        return  # several connections that analyze at the same time find the database locked
    app = await door.open(listen=executing(statement))
    await app.write("CREATE TABLE t (x)")
    assert await busy(app) == []
    assert await app.value("SELECT count(*) FROM t") == TASKS


@pytest.mark.parametrize("statement", first(3, DOUBTFUL))
async def test_respected_or_refused(door: Door, statement: str) -> None:
    """Either all succeed, or the first error names the PRAGMA: no task blames another's lock."""
    if door.stock:
        return  # stock raises "database is locked" if there are many tasks
    name = (
        "query_only" if "query" in statement else "ing_mode" if "locking" in statement else "mode"
    )
    try:
        app = await door.open(listen=executing(statement))
        await app.write("CREATE TABLE t (x)")
        await app.rows("SELECT * FROM t")
    except SQLAlchemyError as error:
        assert name in str(error) or "readonly" in str(error)  # noqa: PT017
        return
    assert await busy(app) == []
    assert await app.value("SELECT count(*) FROM t") == TASKS
    # It is respected, not silently ignored.
    async with app.writer.connect() as connection:
        pragma, wanted = _asked_for(statement)
        asked = await connection.execute(text(f"PRAGMA {pragma}"))
        assert str(asked.scalar_one()).lower() == wanted


def _asked_for(statement: str) -> tuple[str, str]:
    words = statement.replace("=", " ").replace("(", " ").replace(")", " ").split()
    value = words[-1].lower()
    return words[1].removeprefix("main."), {"on": "1", "off": "off"}.get(value, value)
