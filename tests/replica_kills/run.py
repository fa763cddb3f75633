"""The sessions, their rows on the primary, and the result."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

from sqlalchemy.ext.asyncio import create_async_engine

from tests.campaigns import a_moment, together
from tests.cancellations.oracle import Fate
from tests.postgresql import Cluster, until, wait_until

from .doors import Door, doors
from .killer import Killer
from .work import Story, Work

OnProgress = Callable[[int], object]
"""Called with the number of kills since the last call."""

TASKS = 8
LONGEST_MOMENT = 0.02
"""The maximum time in seconds from a session's first read to the kill of its reader."""

SCHEMA = "CREATE TABLE entries (token text, part int, PRIMARY KEY (token, part))"


@dataclass(frozen=True)
class Result:
    """The kills, and the outcomes of the sessions.

    ``wrong`` are sessions whose reported outcome does not match the primary.
    """

    seed: int
    kills: int
    seconds: float
    by_way: Mapping[str, int]
    by_door: Mapping[str, int]
    sessions: int
    committed: int
    rolled_back: int
    unknown: int
    failed_reads: int
    wrong: int


def run(
    cluster: Cluster, database: str, *, count: int, seed: int, on_progress: OnProgress
) -> Result:
    """Kill ``count`` connections of readers; ``database`` is an empty database.

    Raise ``AssertionError`` with the seed for a write that fails, and for anything left behind.
    """
    cluster.primary.sql(SCHEMA, database)
    wait_until(cluster.caught_up)
    campaign = Campaign(cluster, database, count, seed, on_progress)
    try:
        return asyncio.run(campaign.main())
    except Exception as error:
        raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error


class Campaign:
    """One run: its doors, its record of outcomes, its counts."""

    def __init__(
        self, cluster: Cluster, database: str, count: int, seed: int, on_progress: OnProgress
    ) -> None:
        self._cluster = cluster
        self._database = database
        self._count = count
        self._seed = seed
        self._on_progress = on_progress
        self._stories: list[Story] = []
        self._numbers = itertools.count(1)
        self._by_way: Counter[str] = Counter()
        self._by_door: Counter[str] = Counter()

    async def main(self) -> Result:
        started = time.monotonic()
        async with doors(self._cluster, self._database) as all_doors, self._killer() as killer:
            await together(
                self._work(all_doors, killer, Random(f"{self._seed} {number}"))
                for number in range(TASKS)
            )
            await until(self._none_in_transaction)
        return self._result(time.monotonic() - started)

    @asynccontextmanager
    async def _killer(self) -> AsyncIterator[Killer]:
        engines = {
            server.port: create_async_engine(
                server.url("asyncpg"), isolation_level="AUTOCOMMIT", pool_size=TASKS
            )
            for server in self._cluster.servers
        }
        try:
            yield Killer(engines)
        finally:
            for engine in engines.values():
                await engine.dispose()

    async def _work(self, all_doors: Sequence[Door], killer: Killer, rng: Random) -> None:
        while self._by_way.total() < self._count:
            door = rng.choice(all_doors)
            story = Story(f"{self._seed}-{next(self._numbers)}")
            self._stories.append(story)
            await self._one(door, killer, story, rng)

    async def _one(self, door: Door, killer: Killer, story: Story, rng: Random) -> None:
        """Run one session, whose reader is killed at some moment."""
        work = Work(story, Random(rng.random()))
        async with door.maker() as session:
            victim = await work.read_first(session)
            if victim is None:
                return
            try:
                going_on = asyncio.create_task(work.go_on(session))
                await a_moment(LONGEST_MOMENT, rng)
                way = await killer.kill(victim, rng)
                await going_on
            finally:
                victim.close()
        if way is not None:
            self._by_way[way] += 1
            self._by_door[door.name] += 1
            self._on_progress(1)

    def _none_in_transaction(self) -> bool:
        sql = (
            f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{self._database}'"
            " AND state LIKE 'idle in transaction%'"
        )
        return all(server.sql(sql) == "0" for server in self._cluster.servers)

    def _result(self, seconds: float) -> Result:
        fates = Counter(story.fate for story in self._stories)
        return Result(
            seed=self._seed,
            kills=self._by_way.total(),
            seconds=round(seconds, 2),
            by_way=dict(self._by_way),
            by_door=dict(self._by_door.most_common()),
            sessions=len(self._stories),
            committed=fates[Fate.ACKNOWLEDGED],
            rolled_back=fates[Fate.ROLLED_BACK],
            unknown=fates[Fate.UNKNOWN],
            failed_reads=sum(story.failed_reads for story in self._stories),
            wrong=len(list(self._wrong())),
        )

    def _wrong(self) -> Iterator[Story]:
        rows = self._cluster.primary.sql(
            "SELECT token || ' ' || count(*) FROM entries GROUP BY token", self._database
        )
        there = {token: int(parts) for token, parts in map(str.split, rows.splitlines())}
        for story in self._stories:
            expected = story.parts if story.fate is Fate.ACKNOWLEDGED else 0
            if story.fate is Fate.UNKNOWN or there.pop(story.token, 0) != expected:
                yield story
        yield from map(Story, there)
