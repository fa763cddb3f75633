"""Many concurrent clients, each of which repeatedly writes its row and reads it at once."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from sqlalchemy import text

from sa_sqlite_pool import ServerDatabase

from .results import PairsRun, Reads
from .servers import Servers

CREATE = "CREATE TABLE pairs (id integer PRIMARY KEY, value integer NOT NULL)"
FILL = "INSERT INTO pairs SELECT n, 0 FROM generate_series(0, {last}) AS n"
WRITE = text("UPDATE pairs SET value = :value WHERE id = :id")
READ = text("SELECT value, current_setting('port')::integer FROM pairs WHERE id = :id")


@dataclass(slots=True)
class _Found:
    replicas: frozenset[int]
    times_s: list[float] = field(default_factory=list)
    stale: int = 0
    by_replicas: int = 0

    def note(self, seconds: float, *, is_stale: bool, port: int) -> None:
        self.times_s.append(seconds)
        self.stale += is_stale
        self.by_replicas += port in self.replicas

    @property
    def reads(self) -> Reads:
        return Reads.of(self.times_s, stale=self.stale, by_replicas=self.by_replicas)


def measure_pairs(
    servers: Servers, lag_ms: int, driver: str, *, pairs: int, without: int, tasks: int
) -> PairsRun:
    """Run ``pairs`` pairs with tokens, and ``without`` pairs without, on lagging replicas."""
    servers.primary.sql("DROP TABLE IF EXISTS pairs")
    servers.primary.sql(f"{CREATE}; {FILL.format(last=tasks - 1)}")
    servers.set_lag(lag_ms)
    began = time.perf_counter()
    fresh, stale = asyncio.run(_measure(servers, driver, pairs, without, tasks))
    return PairsRun(lag_ms, driver, time.perf_counter() - began, fresh, stale)


async def _measure(
    servers: Servers, driver: str, pairs: int, without: int, tasks: int
) -> tuple[Reads, Reads]:
    async with servers.database(driver) as db:
        return (
            await _run(db, servers, pairs, tasks, with_tokens=True),
            await _run(db, servers, without, tasks, with_tokens=False),
        )


async def _run(
    db: ServerDatabase, servers: Servers, pairs: int, tasks: int, *, with_tokens: bool
) -> Reads:
    found = _Found(frozenset(replica.port for replica in servers.replicas))
    client = _with_tokens if with_tokens else _without
    shares = [pairs // tasks + (number < pairs % tasks) for number in range(tasks)]
    sign = 1 if with_tokens else -1  # so the values differ from those of the other run
    await asyncio.gather(
        *(client(db, number, share, sign, found) for number, share in enumerate(shares))
    )
    return found.reads


async def _with_tokens(
    db: ServerDatabase, number: int, pairs: int, sign: int, found: _Found
) -> None:
    """Run a client that carries its token from block to block, as a browser does with a cookie."""
    token: str | None = None
    for turn in range(1, pairs + 1):
        async with db.fresh(token) as seen:
            await _write(db, number, sign * turn)
        async with db.fresh(seen.token) as seen:
            await _read(db, number, sign * turn, found)
        token = seen.token


async def _without(db: ServerDatabase, number: int, pairs: int, sign: int, found: _Found) -> None:
    for turn in range(1, pairs + 1):
        await _write(db, number, sign * turn)
        await _read(db, number, sign * turn, found)


async def _write(db: ServerDatabase, number: int, value: int) -> None:
    async with db.write() as session:
        await session.execute(WRITE, {"id": number, "value": value})


async def _read(db: ServerDatabase, number: int, expected: int, found: _Found) -> None:
    began = time.perf_counter()
    async with db.read() as session:
        value, port = (await session.execute(READ, {"id": number})).one()
    found.note(time.perf_counter() - began, is_stale=value != expected, port=port)
