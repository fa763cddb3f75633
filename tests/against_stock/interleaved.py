"""Three tasks whose steps are interleaved at fixed points, in the order of the seed.

Each step runs to its end before the next begins, with one exception: a write while another task's
transaction has written. Then either the other transaction ends meanwhile, and the write succeeds
on both; or it does not, and the write fails on both with "database is locked", after a wait that
is short here. A task that has failed in this way rolls back next, because stock leaves it in a
transaction that can neither write nor see what others commit.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sqlalchemy import event, exc, select, text, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from .operations import rows
from .programs import Outcome, engine_and_sessions, entered, shown
from .wide_models import Person, anchors, items, metadata, register

Executor = Any
_COUNT = "SELECT (SELECT count(*) FROM items), (SELECT sum(n) FROM anchors)"


class Actor:
    """A task with a block of its own, which executes the steps that it is sent."""

    def __init__(self, rng: random.Random, way: str, autocommit: bool) -> None:
        self.rng = rng
        self.way = way
        self.autocommit = autocommit
        self.streams: list[Any] = []
        self.writes = False
        self.must_roll_back = False
        self._orders: asyncio.Queue[tuple[Step, asyncio.Future[str]] | None] = asyncio.Queue()

    async def play(self, engine: AsyncEngine, sessions: Callable[[], AsyncSession]) -> None:
        async with entered(self.way, engine, sessions) as executor:
            while (order := await self._orders.get()) is not None:
                step, done = order
                try:
                    done.set_result(shown(await step(executor, self)))
                except Exception as error:
                    self.must_roll_back = _is_locked(error)
                    done.set_result("locked" if self.must_roll_back else shown(error))
            for stream in self.streams:
                await stream.close()

    def begin(self, step: Step) -> asyncio.Future[str]:
        done = asyncio.get_running_loop().create_future()
        self._orders.put_nowait((step, done))
        if step in _WRITES:
            self.writes = not self.autocommit
        elif step in _ENDS:
            self.writes = self.must_roll_back = False
        return done

    def leave(self) -> None:
        self._orders.put_nowait(None)


def _is_locked(error: Exception) -> bool:
    locked = "database is locked" in str(getattr(error, "orig", None))
    return isinstance(error, exc.OperationalError) and locked


async def count(executor: Executor, _: Actor) -> object:
    return rows(await executor.execute(text(_COUNT)))


async def read(executor: Executor, actor: Actor) -> object:
    query = select(items.c.id, items.c.amount).where(items.c.id < actor.rng.randrange(9))
    return rows(await executor.execute(query.order_by(items.c.id)))


async def open_stream(executor: Executor, actor: Actor) -> object:
    """A stream over other tasks' commits; a session's ends with its transaction."""
    result = await executor.stream(select(items.c.id).order_by(items.c.id))
    found = rows_of(await result.fetchmany(1))
    if isinstance(executor, AsyncSession):
        await result.close()
    else:
        actor.streams.append(result)
    return found


async def read_on(_: Executor, actor: Actor) -> object:
    return rows_of(await actor.streams[-1].fetchmany(2)) if actor.streams else None


async def close_stream(_: Executor, actor: Actor) -> None:
    if actor.streams:
        await actor.streams.pop().close()


async def write(executor: Executor, actor: Actor) -> object:
    number = actor.rng.randrange(1, 9)
    changed = update(anchors).where(anchors.c.id == 1).values(n=anchors.c.n + number)
    return rows(await executor.execute(changed))


async def insert_item(executor: Executor, actor: Actor) -> object:
    amount = actor.rng.randrange(95)
    statement = insert(items).values(amount=amount).returning(items.c.id)
    return rows(await executor.execute(statement))


async def add(executor: Executor, actor: Actor) -> object:
    if not isinstance(executor, AsyncSession):
        return await write(executor, actor)
    executor.add(Person(name=None))
    await executor.flush()
    return len(executor.identity_map)


async def commit(executor: Executor, _: Actor) -> None:
    await executor.commit()


async def rollback(executor: Executor, _: Actor) -> None:
    await executor.rollback()


def rows_of(found: Any) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in found]


Step = Callable[[Executor, Actor], Awaitable[object]]
_READS: list[Step] = [count, count, read, open_stream, read_on, close_stream]
_WRITES: list[Step] = [write, write, insert_item, add]
_ENDS: list[Step] = [commit, commit, rollback]


async def run(kind: str, rng: random.Random, path: Path) -> list[Outcome]:
    level = rng.choice([None, None, "SERIALIZABLE", "READ UNCOMMITTED", "AUTOCOMMIT"])
    fails = rng.random() < 0.3
    options = {} if level is None else {"isolation_level": level}
    engine, sessions = engine_and_sessions(kind, path, options, 0.03 if fails else 20.0)
    event.listen(engine.sync_engine, "connect", register)
    async with engine.connect() as connection:
        await connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        await connection.execute(text("INSERT INTO anchors VALUES (1, 0)"))
        await connection.execute(insert(items), [{"amount": n} for n in range(6)])
    found: list[Outcome] = [("level", level, fails)]
    for _ in range(2):
        ways = [rng.choice(["connect", "connect", "autocommit", "session"]) for _ in range(3)]
        found.append(("ways", ways))
        autocommit = [level == "AUTOCOMMIT" or way == "autocommit" for way in ways]
        actors = [Actor(rng, *one) for one in zip(ways, autocommit, strict=True)]
        tasks = [asyncio.create_task(actor.play(engine, sessions)) for actor in actors]
        for _ in range(rng.randrange(10, 30)):
            found.append(await _turn(rng, actors, fails))
        for actor in actors:
            actor.leave()
        await asyncio.gather(*tasks)
    await engine.dispose()
    return found


async def _turn(rng: random.Random, actors: list[Actor], fails: bool) -> Outcome:
    """Let one task execute a step. Return its number, its step and the result."""
    number = rng.randrange(len(actors))
    actor = actors[number]
    step = rng.choice(rng.choice([_READS, _WRITES, _ENDS]))
    if actor.must_roll_back:
        step = rollback
    holder = next((one for one in actors if one.writes and one is not actor), None)
    begun = actor.begin(step)
    if step not in _WRITES or holder is None:
        return number, step.__name__, await begun
    if fails:
        result = number, step.__name__, "holder remains", await begun
        actor.writes = False
        return result
    end = rng.choice(_ENDS)
    ended = await holder.begin(end)
    return number, step.__name__, end.__name__, ended, await begun
