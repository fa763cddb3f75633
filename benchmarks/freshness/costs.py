"""The cost of ``fresh()`` for a single client: a write, and a read in each of its situations."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

from sa_sqlite_pool import ServerDatabase

from .pairs import CREATE, FILL, READ, WRITE
from .results import Cost
from .servers import Servers

Operation = Callable[[ServerDatabase], Awaitable[float]]

WARM_UP = 20


def measure_costs(servers: Servers, driver: str, operations: int) -> list[Cost]:
    """Time each operation ``operations`` times without a block and with one, alternating."""
    servers.primary.sql("DROP TABLE IF EXISTS pairs")
    servers.primary.sql(f"{CREATE}; {FILL.format(last=0)}")
    servers.set_lag(0)
    return asyncio.run(_measure(servers, driver, operations))


async def _measure(servers: Servers, driver: str, operations: int) -> list[Cost]:
    found = []
    async with servers.database(driver) as db:
        for name, without, with_block in _OPERATIONS:
            times: tuple[list[float], list[float]] = ([], [])
            for number in range(operations + WARM_UP):
                taken = await without(db), await with_block(db)
                if number >= WARM_UP:
                    times[0].append(taken[0])
                    times[1].append(taken[1])
            medians = (1_000_000 * statistics.median(one) for one in times)
            found.append(Cost(driver, name, *medians))
    return found


async def _write(db: ServerDatabase) -> float:
    began = time.perf_counter()
    async with db.write() as session:
        await session.execute(WRITE, {"id": 0, "value": 1})
    return time.perf_counter() - began


async def _read(db: ServerDatabase) -> float:
    began = time.perf_counter()
    async with db.read() as session:
        await session.execute(READ, {"id": 0})
    return time.perf_counter() - began


async def _write_in_a_block(db: ServerDatabase) -> float:
    async with db.fresh():
        return await _write(db)


async def _read_what_is_known(db: ServerDatabase) -> float:
    async with db.fresh():
        await _read(db)
        return await _read(db)


async def _read_after_a_write(db: ServerDatabase) -> float:
    await _write(db)
    return await _read(db)


async def _read_after_a_write_in_a_block(db: ServerDatabase) -> float:
    async with db.fresh():
        await _write(db)
        return await _read(db)


async def _request(db: ServerDatabase) -> float:
    began = time.perf_counter()
    async with db.fresh():
        await _read(db)
    return time.perf_counter() - began


_OPERATIONS: tuple[tuple[str, Operation, Operation], ...] = (
    ("a write", _write, _write_in_a_block),
    ("a read after another read", _read, _read_what_is_known),
    ("a read right after a write", _read_after_a_write, _read_after_a_write_in_a_block),
    ("a block of one read, its end included", _read, _request),
)
