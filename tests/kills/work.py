"""The work of the tasks of one process: short write transactions, one after the other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from sqlalchemy import text

from tests.campaigns import OnPurpose, a_moment, cancel_within, together
from tests.checkpoints.journal import Entry
from tests.checkpoints.oracle import ADD_ONE, COUNTERS, INSERT, rows_of
from tests.programs import Door

from .diary import Diary

WRITERS = 3
_HOLD_SECONDS = 0.005  # the maximum; longer than a statement, so kills hit holders of the turn
_PAUSE_SECONDS = 0.002

_INSERT, _ADD_ONE = text(INSERT), text(ADD_ONE)
_VALUE = text("SELECT value FROM counters WHERE id = :counter")
_SET_VALUE = text("UPDATE counters SET value = :value WHERE id = :counter")


class Work:
    """The work of the tasks of one process, until they are told to stop."""

    def __init__(self, door: Door, diary: Diary, seed: str) -> None:
        self._door = door
        self._diary = diary
        self._seed = seed
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    async def once(self) -> None:
        """Commit once, which opens connections."""
        await self._commit(Random(f"{self._seed} once"))

    async def run(self) -> None:
        """Run the tasks; raise the error of the first one that fails."""
        await together(self._write(Random(f"{self._seed} {number}")) for number in range(WRITERS))

    async def _write(self, rng: Random) -> None:
        ways = {
            self._commit: 6,
            self._read_modify_write: 3,
            self._raise: 2,
            self._commit_cancelled: 1,
        }
        while not self._stopped:
            await rng.choices(list(ways), list(ways.values()))[0](rng)
            await a_moment(_PAUSE_SECONDS, rng)

    @asynccontextmanager
    async def _until_over(self, entry: Entry) -> AsyncIterator[None]:
        """Acknowledge the entry when the block ends; record that it is over if the block raises."""
        try:
            yield
        except BaseException:
            self._diary.over(entry)
            raise
        self._diary.acknowledge(entry)

    async def _insert(self, writer: Any, entry: Entry) -> None:
        await writer.execute(_INSERT, [row._asdict() for row in rows_of(entry)])

    async def _commit(self, rng: Random) -> None:
        entry = self._diary.asks(rng.randint(1, 3), rng.randrange(COUNTERS))
        async with self._until_over(entry), self._door.write() as writer:
            await self._insert(writer, entry)
            self._diary.holds(entry)
            await self._hold(rng)
            await writer.execute(_ADD_ONE, {"counter": entry.counter})

    async def _read_modify_write(self, rng: Random) -> None:
        """Check that a value read stays true until it is written, across all processes."""
        entry = self._diary.asks(rng.randint(1, 3), rng.randrange(COUNTERS))
        async with self._until_over(entry), self._door.claim() as writer:
            value = await writer.scalar(_VALUE, {"counter": entry.counter})
            self._diary.holds(entry)
            await self._hold(rng)
            await writer.execute(_SET_VALUE, {"counter": entry.counter, "value": value + 1})
            await self._insert(writer, entry)

    async def _raise(self, rng: Random) -> None:
        doomed = self._diary.asks_doomed(rng.randint(1, 3), rng.randrange(COUNTERS))
        with contextlib.suppress(OnPurpose):
            async with self._door.write() as writer:
                await self._insert(writer, doomed)
                self._diary.holds(doomed)
                await self._hold(rng)
                raise OnPurpose
        self._diary.over(doomed)

    async def _commit_cancelled(self, rng: Random) -> None:
        task = asyncio.create_task(self._commit(rng))
        await cancel_within(0.02, task, rng)

    async def _hold(self, rng: Random) -> None:
        await a_moment(_HOLD_SECONDS, rng)
