"""Operations through functions, prepared reads and copies, which only the facade has."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.prepared.read import PreparedRead
from tests.campaigns import OnPurpose

from .moments import near
from .operations import (
    COUNTER,
    INSERT,
    INSERT_SLOWLY,
    ONE_TOKEN,
    SCAN,
    SET_COUNTER,
    TORN_TOKENS,
    expect,
    expect_scan,
)
from .oracle import Ledger, integrity

Rows = list[dict[str, int]]
RunFunction = Callable[..., Coroutine[Any, Any, Any]]
"""A method such as ``db.run_write``, whose first argument is the function."""

Here = Connection | Session


# -- writes -------------------------------------------------------------------------------------


def _insert(here: Here, rows: Rows) -> None:
    for row in rows:
        here.execute(INSERT, row)


def _insert_and_raise(here: Here, rows: Rows) -> None:
    _insert(here, rows)
    raise OnPurpose


def _insert_beside_savepoint(here: Here, rows: Rows, nested: Rows) -> None:
    _insert(here, rows[:1])
    with contextlib.suppress(OnPurpose), here.begin_nested():
        _insert_and_raise(here, nested)
    _insert(here, rows[1:])


def _insert_slowly(here: Here, token: int, parts: int) -> None:
    here.execute(INSERT_SLOWLY, {"token": token, "parts": parts})


def _add_one(here: Here, rows: Rows) -> None:
    value = here.scalar(COUNTER)
    here.execute(SET_COUNTER, {"value": value + 1})
    _insert(here, rows)


async def written(run: RunFunction, ledger: Ledger, _rng: Random) -> None:
    token = ledger.token(parts=2)
    near()
    await run(_insert, ledger.rows(token))
    ledger.acknowledge(token)


async def counted(run: RunFunction, ledger: Ledger, _rng: Random) -> None:
    """Read, add and write; no addition is lost."""
    token = ledger.counted()
    near()
    await run(_add_one, ledger.rows(token))
    ledger.acknowledge(token)


async def written_slowly(run: RunFunction, ledger: Ledger, rng: Random) -> None:
    parts = rng.randint(50, 200)
    token = ledger.token(parts)
    near()
    await run(_insert_slowly, token, parts)
    ledger.acknowledge(token)


async def raised(run: RunFunction, ledger: Ledger, _rng: Random) -> None:
    token = ledger.doomed(parts=2)
    near()
    with contextlib.suppress(OnPurpose):
        await run(_insert_and_raise, ledger.rows(token))


async def beside_savepoint(run: RunFunction, ledger: Ledger, _rng: Random) -> None:
    token, nested = ledger.token(parts=2), ledger.doomed()
    near()
    await run(_insert_beside_savepoint, ledger.rows(token), ledger.rows(nested))
    ledger.acknowledge(token)


async def written_together(run: RunFunction, ledger: Ledger, rng: Random) -> None:
    """Run functions that share a COMMIT, some of which fail or are cancelled individually."""
    works = rng.choices([written, counted, raised, beside_savepoint], k=5)
    tasks = [asyncio.create_task(work(run, ledger, rng)) for work in works]
    try:
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        given_up = rng.choice(tasks)
        given_up.cancel()
        await asyncio.wait(tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if task is not given_up:
            task.result()


# -- reads --------------------------------------------------------------------------------------


def _torn(here: Here) -> list[int]:
    return list(here.execute(TORN_TOKENS).scalars())


def _scan(here: Here, rows: int) -> Any:
    return here.scalar(SCAN, {"rows": rows})


async def whole(run: RunFunction, _ledger: Ledger, _rng: Random) -> None:
    near()
    expect(await run(_torn), [], "torn tokens")


async def scanned(run: RunFunction, _ledger: Ledger, rng: Random) -> None:
    rows = rng.randint(200, 1_000)
    near()
    expect_scan(await run(_scan, rows), rows)


class Prepared:
    """The prepared reads of one database."""

    def __init__(self, db: SQLiteDatabase) -> None:
        self.one: PreparedRead = db.prepare(ONE_TOKEN)
        self.torn: PreparedRead = db.prepare(TORN_TOKENS)
        self.scan: PreparedRead = db.prepare(SCAN)

    async def point(self, _ledger: Ledger, _rng: Random) -> None:
        for _ in range(3):
            near()
            expect(await self.one.scalar_one(token=0), 0, "rows of no write")

    async def whole(self, _ledger: Ledger, _rng: Random) -> None:
        near()
        expect(await self.torn.scalars(), [], "torn tokens")

    async def scanned(self, _ledger: Ledger, rng: Random) -> None:
        rows = rng.randint(200, 1_000)
        near()
        expect_scan(await self.scan.scalar(rows=rows), rows)


async def fresh(db: SQLiteDatabase, ledger: Ledger, rng: Random) -> None:
    """Check that functions and prepared reads see what a function has written."""
    token, one = ledger.token(), db.prepare(ONE_TOKEN)
    await one.scalar(token=0)
    run: RunFunction = rng.choice([db.run_write, db.run_write_core])
    await run(_insert, ledger.rows(token))
    ledger.acknowledge(token)
    near()
    expect(await one.scalar(token=token), 1, "rows just committed, by a prepared read")
    found = await db.run_read_core(lambda here: here.scalar(ONE_TOKEN, {"token": token}))
    expect(found, 1, "rows just committed, by a function")


# -- copies -------------------------------------------------------------------------------------


async def copied(db: SQLiteDatabase, ledger: Ledger, rng: Random) -> None:
    """Check that a copy contains earlier commits; a cancelled one leaves nothing or is complete."""
    before = ledger.acknowledged()
    path = Path(db.url.database or "").with_name(f"copy-{ledger.number()}.db")
    near()
    try:
        await db.backup(path, pages_per_step=rng.choice([1, 10, 1000]))
    finally:
        if path.exists():  # the cancellation may have arrived too late
            expect(integrity(path), [], "what is wrong with a copy")
            expect(ledger.torn_in(path, before), [], "what is wrong in a copy")
            path.unlink()
        expect(list(path.parent.glob(f"*{path.name}*")), [], "what a copy has left")
