"""Random programs have the same results, statement by statement, wherever their statements run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from sa_sqlite_pool import SQLitePool, WriterPool
from sa_sqlite_pool.transactions import placement

SEEDS = range(3)
STATEMENTS = 300

CREATE = (
    "CREATE TABLE parents (id INTEGER PRIMARY KEY, n INTEGER UNIQUE, CHECK (n < 90))",
    "CREATE TABLE children (id INTEGER PRIMARY KEY, parent REFERENCES parents ON DELETE CASCADE)",
    "CREATE TABLE log (n)",
    "CREATE TRIGGER noting AFTER UPDATE ON parents BEGIN INSERT INTO log VALUES (new.n); END",
    "CREATE VIEW families AS SELECT p.n, count(c.id) AS c FROM parents p JOIN children c "
    "ON c.parent = p.id GROUP BY p.id",
)

# Some are short, some are long, some fail, and some vary.
TEXTS = (
    "INSERT INTO parents (n) VALUES (:a)",
    "INSERT INTO parents (n) VALUES (:a) RETURNING id, n",
    "INSERT OR REPLACE INTO parents (id, n) VALUES (:a, :b)",
    "INSERT INTO children (parent) SELECT id FROM parents WHERE n < :a",
    "UPDATE parents SET n = :b WHERE id = :a",
    "UPDATE parents SET n = n + 1 WHERE n % 3 = :a % 3 RETURNING n",
    "DELETE FROM parents WHERE id = :a",
    "DELETE FROM children WHERE id % 7 = :a % 7",
    "SELECT * FROM parents WHERE id = :a",
    "SELECT * FROM families ORDER BY n LIMIT :a",
    "SELECT count(*), total(n) FROM log",
    "SELECT count(*) FROM parents a, parents b WHERE a.n + b.n < :a",
    "WITH RECURSIVE i(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM i WHERE n < :a * :b) "
    "SELECT max(n) FROM i",
    "SELECT count_calls(:a)",
    "UPDATE parents SET n = count_calls(:b) WHERE id = :a",
    "SELECT * FROM nothing",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "RELEASE s",
)


class Calls:
    """A function of the application, which counts its calls."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, n: int) -> int:
        self.count += 1
        return n


def program(seed: int) -> Iterator[tuple[str, dict[str, int]]]:
    rng = random.Random(seed)
    for _ in range(STATEMENTS):
        step = rng.random()
        if step < 0.1:
            yield "COMMIT", {}
        elif step < 0.14:
            yield "ROLLBACK", {}
        else:
            yield rng.choice(TEXTS), {"a": rng.randrange(100), "b": rng.randrange(100)}


async def execute(connection: AsyncConnection, sql: str, parameters: dict[str, int]) -> Any:
    if sql == "COMMIT":
        return await connection.commit()
    if sql == "ROLLBACK":
        return await connection.rollback()
    used = {name: value for name, value in parameters.items() if f":{name}" in sql}
    try:
        result = await connection.execute(text(sql), used)
    except DBAPIError as error:
        return str(error.orig)
    return [tuple(row) for row in result] if result.returns_rows else result.rowcount


async def run(path: Path, poolclass: type, where: str, seed: int) -> list[Any]:
    calls = Calls()
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}",
        poolclass=poolclass,
        placement=where,
        on_connect=lambda connection: connection.create_function("count_calls", 1, calls),
    )
    async with engine.begin() as connection:
        for statement in CREATE:
            await connection.execute(text(statement))
    async with engine.connect() as connection:
        happened = [await execute(connection, *step) for step in program(seed)]
        await connection.rollback()
        for table in ("parents", "children", "log"):
            happened.append(await execute(connection, f"SELECT * FROM {table}", {}))
    await engine.dispose()
    return [*happened, calls.count]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("poolclass", [SQLitePool, WriterPool], ids=["swap-in", "writer"])
async def test_random_programs(
    tmp_path: Path, poolclass: type, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each statement's rows, counts and errors are equal, as are the final tables and calls."""
    monkeypatch.setattr(placement, "SHORT_SECONDS", 60.0)  # everything is tried inline
    expected = await run(tmp_path / "thread.db", poolclass, "thread", seed)
    assert sum(isinstance(one, list) and bool(one) for one in expected) > 50
    for where in ("auto", "inline"):
        assert await run(tmp_path / f"{where}.db", poolclass, where, seed) == expected, where
