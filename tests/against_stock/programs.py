"""A plain program: statements of all kinds on connections and with sessions, in one task."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

import sa_sqlite_pool
from sa_sqlite_pool import SQLitePool

from .models import OBJECTS, Base, on_connect
from .operations import ON_CONNECTIONS, ON_SESSIONS, Block, Step

Outcome = tuple[object, ...]


async def run(kind: str, rng: random.Random, path: Path) -> list[Outcome]:
    level = rng.choice([None, None, "AUTOCOMMIT", "SERIALIZABLE", "READ UNCOMMITTED"])
    engine, sessions = engine_and_sessions(
        kind, path, {} if level is None else {"isolation_level": level}
    )
    event.listen(engine.sync_engine, "connect", on_connect)
    found: list[Outcome] = [("isolation level", level)]
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        for sql in OBJECTS:
            await connection.execute(text(sql))
    for _ in range(rng.randrange(2, 5)):
        way = rng.choice(["connect", "connect", "begin", "autocommit", "session", "session"])
        block = Block(rng, way == "autocommit" or level == "AUTOCOMMIT")
        found.append(("block", way))
        try:
            async with entered(way, engine, sessions) as executor:
                steps = ON_SESSIONS if way == "session" else ON_CONNECTIONS
                for _ in range(rng.randrange(3, 16)):
                    found.append(await _step(rng.choice(steps), executor, block))
                for stream in block.streams:
                    await stream.close()
        except Exception as error:
            found.append(("its end", shown(error)))
    await engine.dispose()
    return found


def engine_and_sessions(
    kind: str, path: Path, options: dict[str, Any], patience: float | None = None
) -> tuple[AsyncEngine, Callable[[], AsyncSession]]:
    url = f"sqlite+aiosqlite:///{path}"
    # A longer wait is pointless: only a connection that the program has lost can hold a lock.
    if kind == "stock":
        options["connect_args"] = {"timeout": patience or 0.1}
    else:
        options["write_timeout"] = patience or 2.0
    if kind == "imports":
        lean = sa_sqlite_pool.create_async_engine(url, **options)
        return lean, sa_sqlite_pool.async_sessionmaker(lean)
    if kind == "swap-in":
        options["poolclass"] = SQLitePool
    engine = create_async_engine(url, **options)
    return engine, async_sessionmaker(engine)


def entered(way: str, engine: AsyncEngine, sessions: Callable[[], AsyncSession]) -> Any:
    if way == "session":
        return sessions()
    if way == "begin":
        return engine.begin()
    if way == "autocommit":
        return engine.execution_options(isolation_level="AUTOCOMMIT").connect()
    return engine.connect()


async def _step(step: Step, executor: Any, block: Block) -> Outcome:
    block.said = []
    try:
        result = shown(await step(executor, block))
    except Exception as error:
        result = shown(error)
    return step.__name__, block.said, result


def shown(result: object) -> str:
    """Return the comparable text of a result or an error, without addresses."""
    if not isinstance(result, BaseException):
        return repr(result)
    original = getattr(result, "orig", None)
    message = str(original or result)
    for more_is_said in ("database table is locked", "cannot VACUUM from within a transaction"):
        if more_is_said in message:
            return f"{type(result).__name__}: {more_is_said}"
    return f"{type(result).__name__}: {re.sub(r' at 0x[0-9a-f]+', '', message)}"
