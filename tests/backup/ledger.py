"""A ledger whose books balance in every committed state, and in no other."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import TracebackType

from sqlalchemy import text

from sa_sqlite_pool import SQLiteDatabase

ROOT = Path(__file__).parent.parent.parent
ACCOUNTS = 50
START = 1000  # the initial balance of each account

SCHEMA = (
    "CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER, ballast BLOB)",
    "CREATE TABLE entries (id INTEGER PRIMARY KEY, debit INTEGER, credit INTEGER, amount INTEGER)",
    "CREATE TABLE counter (n INTEGER)",
    "INSERT INTO counter VALUES (0)",
)
TAKE = "UPDATE accounts SET balance = balance - :amount WHERE id = :debit"
GIVE = "UPDATE accounts SET balance = balance + :amount WHERE id = :credit"
NOTE = "INSERT INTO entries (debit, credit, amount) VALUES (:debit, :credit, :amount)"
COUNT = "UPDATE counter SET n = n + 1"

# Writes without this package, or with it, until its input ends; prints the number of writes.
PLAIN_WRITER = """
import random, select, sqlite3, sys
from tests.backup.ledger import COUNT, GIVE, NOTE, TAKE, transfer
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
generator, done = random.Random(int(sys.argv[2])), 0
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    values = transfer(generator)
    connection.execute("BEGIN IMMEDIATE")
    for statement in (TAKE, GIVE, NOTE):
        connection.execute(statement, values)
    connection.execute(COUNT)
    connection.execute("COMMIT")
    done += 1
print(done, flush=True)
"""
PACKAGE_WRITER = """
import asyncio, random, select, sys
from sa_sqlite_pool import SQLiteDatabase
from tests.backup.ledger import post

async def main():
    generator, done = random.Random(int(sys.argv[2])), 0
    async with SQLiteDatabase(sys.argv[1]) as db:
        print("ready", flush=True)
        while not select.select([sys.stdin], [], [], 0)[0]:
            await post(db, generator)
            done += 1
    print(done, flush=True)

asyncio.run(main())
"""


def transfer(generator: random.Random) -> dict[str, int]:
    debit, credit = generator.sample(range(1, ACCOUNTS + 1), 2)
    return {"debit": debit, "credit": credit, "amount": generator.randint(1, 100)}


async def create(db: SQLiteDatabase, kib: int = 2000) -> None:
    """Create the ledger, of about ``kib`` KiB in the file."""
    async with db.write() as session:
        for statement in SCHEMA:
            await session.execute(text(statement))
        await session.execute(
            text("INSERT INTO accounts (balance, ballast) VALUES (:start, randomblob(:size))"),
            [{"start": START, "size": kib * 1024 // ACCOUNTS}] * ACCOUNTS,
        )


async def post(db: SQLiteDatabase, generator: random.Random) -> None:
    """Run one transaction of four statements."""
    values = transfer(generator)
    async with db.write() as session:
        for statement in (TAKE, GIVE, NOTE):
            await session.execute(text(statement), values)
        await session.execute(text(COUNT))


def entries(path: Path) -> int:
    """Return the number of transactions in a closed copy, whose books must balance."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        (counted,) = copy.execute("SELECT n FROM counter").fetchone()
        assert copy.execute("SELECT count(*) FROM entries").fetchone() == (counted,)
        for account, balance in copy.execute("SELECT id, balance FROM accounts").fetchall():
            posted = copy.execute(
                "SELECT coalesce(sum(CASE WHEN credit = :id THEN amount ELSE -amount END), 0) "
                "FROM entries WHERE :id IN (debit, credit)",
                {"id": account},
            ).fetchone()
            assert posted == (balance - START,)
    return int(counted)


def content(path: Path) -> list[str]:
    """Return the whole database as SQL."""
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


class Writer:
    """``with Writer(path, PLAIN_WRITER, seed) as writer:`` runs a process that posts repeatedly."""

    def __init__(self, path: Path, program: str, seed: int) -> None:
        self._command = [sys.executable, "-c", program, str(path), str(seed)]
        self.done = 0

    def __enter__(self) -> Writer:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        output, _ = self._process.communicate("end\n", timeout=60)
        if exc is None:
            self.done = int(output)


def run_program(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program in another process, to completion."""
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        cwd=ROOT,
    )
