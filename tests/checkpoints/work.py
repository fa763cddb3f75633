"""The work of the tasks of one process: short transactions, short reads, and checkpoints."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from random import Random

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from sa_sqlite_pool import CheckpointMode, CheckpointOutcome, SQLiteDatabase
from tests.campaigns import OnPurpose, cancel_within, together

from .journal import Entry, Journal
from .oracle import ADD_ONE, COUNTERS, INSERT, rows_of

WRITERS = 3
READERS = 2

_INSERT, _ADD_ONE = text(INSERT), text(ADD_ONE)
_VALUE = text("SELECT value FROM counters WHERE id = :counter")
_SET_VALUE = text("UPDATE counters SET value = :value WHERE id = :counter")
_COUNT = text("SELECT count(*) FROM entries WHERE counter = :counter AND part = 0")
_PARTS = text("SELECT count(*) FROM entries WHERE token = :token")


class Work:
    """The work of the tasks of one process, until they are told to stop."""

    def __init__(self, db: SQLiteDatabase, journal: Journal, seed: str) -> None:
        self._db = db
        self._journal = journal
        self._seed = seed
        self._stopped = asyncio.Event()
        self._acknowledged: deque[Entry] = deque(maxlen=20)
        self.counts: Counter[str] = Counter()

    def stop(self) -> None:
        self._stopped.set()

    async def run(self) -> None:
        """Run the tasks; raise the error of the first one that fails."""
        kinds = [self._write] * WRITERS + [self._read] * READERS + [self._checkpoint]
        await together(
            self._repeat(kind, Random(f"{self._seed} {number}"))
            for number, kind in enumerate(kinds)
        )

    async def _repeat(self, work: Callable[[Random], Awaitable[None]], rng: Random) -> None:
        while not self._stopped.is_set():
            await work(rng)

    async def _pause(self, rng: Random, seconds: float) -> None:
        """Pause for a random time, at most until the end."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), rng.uniform(0, seconds))

    # -- writers --------------------------------------------------------------------------------

    async def _write(self, rng: Random) -> None:
        ways = {
            self._commit: 12,
            self._read_then_write: 1,
            self._read_modify_write: 4,
            self._roll_back_then_commit: 3,
            self._raise: 3,
            self._commit_cancelled: 1,
        }
        await rng.choices(list(ways), list(ways.values()))[0](rng)
        await self._pause(rng, 0.005)

    def _begin(self, rng: Random) -> Entry:
        return self._journal.begin(rng.randint(1, 3), rng.randrange(COUNTERS))

    def _begin_doomed(self, rng: Random) -> Entry:
        return self._journal.begin_doomed(rng.randint(1, 3), rng.randrange(COUNTERS))

    def _acknowledge(self, entry: Entry) -> None:
        self._journal.acknowledge(entry)
        self._acknowledged.append(entry)

    async def _insert(self, session: AsyncSession, entry: Entry, rng: Random) -> None:
        """Insert rows, occasionally with padding that fills pages."""
        rows = rows_of(entry, rng.choice([1, 1, 10, 10, 600]))
        await session.execute(_INSERT, [row._asdict() for row in rows])

    async def _add(self, session: AsyncSession, entry: Entry, rng: Random) -> None:
        await self._insert(session, entry, rng)
        await session.execute(_ADD_ONE, {"counter": entry.counter})

    async def _commit(self, rng: Random) -> None:
        entry = self._begin(rng)
        async with self._db.write() as session:
            await self._add(session, entry, rng)
        self._acknowledge(entry)

    async def _read_then_write(self, rng: Random) -> None:
        """Read, then write, in a session that begins as a reader."""
        entry = self._begin(rng)
        async with self._db.sessionmaker() as session:
            await self._check_absent(session, entry)
            await self._add(session, entry, rng)
            await session.commit()
        self._acknowledge(entry)

    async def _read_modify_write(self, rng: Random) -> None:
        """Check that a value read stays true until it is written, across all processes."""
        entry = self._begin(rng)
        async with self._db.write() as session:
            value = await session.scalar(_VALUE, {"counter": entry.counter})
            assert value is not None
            await self._insert(session, entry, rng)
            new = {"counter": entry.counter, "value": value + 1}
            await session.execute(_SET_VALUE, new)
        self._acknowledge(entry)

    async def _roll_back_then_commit(self, rng: Random) -> None:
        doomed, entry = self._begin_doomed(rng), self._begin(rng)
        async with self._db.sessionmaker(role="writer") as session:
            await self._add(session, doomed, rng)
            await session.rollback()
            await self._check_absent(session, doomed)
            await self._add(session, entry, rng)
            await session.commit()
        self._acknowledge(entry)

    async def _raise(self, rng: Random) -> None:
        doomed = self._begin_doomed(rng)
        with contextlib.suppress(OnPurpose):
            async with self._db.write() as session:
                await self._add(session, doomed, rng)
                raise OnPurpose

    async def _commit_cancelled(self, rng: Random) -> None:
        task = asyncio.create_task(self._commit(rng))
        await cancel_within(0.005, task, rng)

    # -- readers --------------------------------------------------------------------------------

    async def _read(self, rng: Random) -> None:
        ways = {self._check_counter: 20, self._check_counter_slowly: 1, self._check_fresh: 20}
        await rng.choices(list(ways), list(ways.values()))[0](rng)
        await self._pause(rng, 0.04)

    async def _check_counter(self, rng: Random) -> None:
        await self._check_counter_twice(rng, seconds=0)

    async def _check_counter_slowly(self, rng: Random) -> None:
        """Check the counter slowly: a reader of an old state holds checkpoints back."""
        await self._check_counter_twice(rng, seconds=0.05)

    async def _check_counter_twice(self, rng: Random, seconds: float) -> None:
        counter = {"counter": rng.randrange(COUNTERS)}
        async with self._db.read() as session:
            value = await session.scalar(_VALUE, counter)
            if seconds:
                await self._pause(rng, seconds)
            count = await session.scalar(_COUNT, counter)
            again = await session.scalar(_VALUE, counter)
        assert value == again == count, f"{counter}: {value}, {count} transactions, then {again}"

    async def _check_fresh(self, rng: Random) -> None:
        """Check that a commit acknowledged a moment ago is visible, and stays visible."""
        if not self._acknowledged:
            return
        entry = rng.choice(self._acknowledged)
        async with self._db.read() as session:
            parts = await session.scalar(_PARTS, {"token": entry.token})
        assert parts == entry.parts, f"{entry.token} was acknowledged, and {parts} parts are there"

    async def _check_absent(self, session: AsyncSession, entry: Entry) -> None:
        parts = await session.scalar(_PARTS, {"token": entry.token})
        assert parts == 0, f"{entry.token} was not committed, and {parts} parts are there"

    # -- checkpoints ----------------------------------------------------------------------------

    async def _checkpoint(self, rng: Random) -> None:
        await self._pause(rng, 0.03)
        task = asyncio.create_task(self._checkpoint_once(rng.choice(list(CheckpointMode))))
        if rng.random() < 0.1:
            await cancel_within(0.005, task, rng)
        else:
            await task

    async def _checkpoint_once(self, mode: CheckpointMode) -> None:
        done = await self._db.checkpoint(mode.value)
        assert done.outcome is not CheckpointOutcome.NOT_WAL, done
        assert done.moved <= done.frames, done
        self.counts[f"{mode.value}: {done.outcome.value}"] += 1
