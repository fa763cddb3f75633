"""Workers that take jobs from a table, as APScheduler's data store does.

They query free jobs with ``with_for_update(skip_locked=True)``, which SQLAlchemy leaves
out on SQLite, and write which worker has them.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Integer, column, select, table, update

from .doors import ENGINES, FACADE, STOCK, SWAP_IN, WRITERS, Application, Door, Executor, _session

JOBS = table("jobs", column("id", Integer), column("worker", Integer))
FREE = select(JOBS.c.id).where(JOBS.c.worker.is_(None)).order_by(JOBS.c.id).limit(2)

# A routed session holds the turn from the FOR UPDATE on.
_TAKING = {**WRITERS, (ENGINES, "auto"): _session, (FACADE, "auto"): _session}


async def opened(door: Door, **options: Any) -> Application:
    app = await door.open(**options)
    await app.write(
        "CREATE TABLE jobs (id INTEGER PRIMARY KEY, worker INTEGER)",
        "INSERT INTO jobs (id) VALUES (1), (2), (3), (4), (5), (6), (7), (8)",
    )
    return app


async def free(executor: Executor) -> list[int]:
    result = await executor.execute(FREE.with_for_update(skip_locked=True))
    return [row.id for row in result]


async def take(executor: Executor, ids: list[int], worker: int) -> None:
    await executor.execute(update(JOBS).where(JOBS.c.id.in_(ids)).values(worker=worker))
    await executor.commit()


async def each_is_taken_once(app: Application) -> None:
    async def work(worker: int) -> list[int]:
        async with app.enter() as executor:
            ids = await free(executor)
            await take(executor, ids, worker)
            return ids

    taken = await asyncio.gather(*(work(worker) for worker in range(4)))
    assert sorted(job for ids in taken for job in ids) == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("way", [pytest.param(way, id="-".join(way)) for way in _TAKING])
async def test_with_the_turn(way: tuple[str, str], path: Path) -> None:
    """Each job is taken once if the turn is acquired before free jobs are read."""
    door = Door(way[0], path, _TAKING[way])
    await each_is_taken_once(await opened(door))
    await door.close()


async def test_an_engine_that_is_handed_over(path: Path) -> None:
    """A library that is given an engine acquires the turn by the engine's option."""
    door = Door(SWAP_IN, path, _session)
    await each_is_taken_once(await opened(door, execution_options={"sqlite_role": "writer"}))
    await door.close()


@pytest.mark.parametrize("kind", [STOCK, SWAP_IN])
async def test_without(kind: str, path: Path) -> None:
    """Two workers take the same jobs on a swap-in engine without the option, as on stock."""
    door = Door(kind, path, _session)
    app = await opened(door)
    async with app.session() as first, app.session() as second:
        ids = await free(first)
        assert await free(second) == ids == [1, 2]
        await take(first, ids, 1)
        await take(second, ids, 2)
    assert await app.rows("SELECT id FROM jobs WHERE worker = 2") == [(1,), (2,)]
    await door.close()
