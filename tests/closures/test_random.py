"""Functions, sessions, failures and cancellations at random, in any resulting order."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from sa_sqlite_pool import SQLiteDatabase
from tests.helpers import until_free

TASKS = 12
ROUNDS = 25

DEFERRED = " DEFERRABLE INITIALLY DEFERRED)"
TABLES = (
    "CREATE TABLE parts (token INTEGER, part INTEGER, UNIQUE (token, part))",
    "CREATE TABLE keys (id INTEGER PRIMARY KEY)",
)
REFERENCES = "CREATE TABLE refs (key INTEGER REFERENCES keys (id)"
INSERT = text("INSERT INTO parts VALUES (:token, :part)")


class OnPurposeError(Exception):
    """The error of a function that fails."""


class Books:
    """What each function had to do, and the outcome its caller got."""

    def __init__(self) -> None:
        self.parts: dict[int, int] = {}  # by token
        self.runs: dict[int, int] = {}
        self.acknowledged: set[int] = set()
        self.failed: set[int] = set()
        self.inside = 0

    def token(self, parts: int) -> int:
        token = len(self.parts)
        self.parts[token] = parts
        self.runs[token] = 0
        return token

    def write(self, connection: Connection, token: int, failure: str) -> int:
        self.runs[token] += 1
        self.inside += 1
        assert self.inside == 1, "two at the same time"
        try:
            for part in range(self.parts[token]):
                connection.execute(INSERT, {"token": token, "part": part})
            if failure == "raises":
                raise OnPurposeError
            if failure == "conflict":
                connection.execute(INSERT, {"token": token, "part": 0})
            if failure == "orphan":
                connection.execute(text("INSERT INTO refs VALUES (77)"))
            return token
        finally:
            self.inside -= 1

    async def run(self, db: SQLiteDatabase, rng: random.Random) -> None:
        token = self.token(rng.randint(1, 5))
        failure = rng.choice(["", "", "", "raises", "conflict", "orphan"])
        try:
            assert await db.run_write_core(self.write, token, failure) == token
        except (OnPurposeError, IntegrityError):
            assert failure
            self.failed.add(token)
        else:
            assert not failure
            self.acknowledged.add(token)

    async def session(self, db: SQLiteDatabase, rng: random.Random) -> None:
        token = self.token(rng.randint(1, 3))
        async with db.write() as session:
            for part in range(self.parts[token]):
                await session.execute(INSERT, {"token": token, "part": part})
        self.acknowledged.add(token)

    def check(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            rows = connection.execute("SELECT token, count(*) FROM parts GROUP BY token")
            found = dict(rows.fetchall())
            assert connection.execute("SELECT count(*) FROM refs").fetchone() == (0,)
        assert all(runs <= 1 for runs in self.runs.values()), "one has run twice"
        assert self.acknowledged <= found.keys(), "one was acknowledged and is not there"
        assert not self.failed & found.keys(), "one has failed and is there"
        assert all(count == self.parts[token] for token, count in found.items()), "half of one"


async def one_task(db: SQLiteDatabase, books: Books, rng: random.Random) -> int:
    """Run its rounds, cancelling some after a few laps of the loop; return how many."""
    cancelled = 0
    for _ in range(ROUNDS):
        work = books.session if rng.random() < 0.2 else books.run
        task = asyncio.ensure_future(work(db, rng))
        if rng.random() < 0.3:
            for _ in range(rng.randint(0, 30)):
                await asyncio.sleep(0)
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            cancelled += 1
    return cancelled


@pytest.mark.parametrize("deferred", [True, False])
@pytest.mark.parametrize("seed", range(4))
async def test_books(path: Path, seed: int, deferred: bool) -> None:
    """Acknowledged work is kept, failed work is not, cancelled work is all or nothing."""
    books, rng = Books(), random.Random(seed)
    async with SQLiteDatabase(path) as db:
        async with db.write() as session:
            for sql in (*TABLES, REFERENCES + (DEFERRED if deferred else ")")):
                await session.execute(text(sql))
        rngs = [random.Random(rng.random()) for _ in range(TASKS)]
        cancelled = await asyncio.gather(*(one_task(db, books, own) for own in rngs))
        await until_free(path)
    books.check(path)
    assert sum(cancelled) > TASKS
    assert len(books.acknowledged) > TASKS
