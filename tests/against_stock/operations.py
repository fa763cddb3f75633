"""The steps of a program on a connection and with a session.

Intentional differences are left out: DDL is part of the transaction here (a step commits it), and
so is a SAVEPOINT before the first write (a step writes first), PRAGMA foreign_keys within a
transaction is not silently ignored, ``executemany`` in AUTOCOMMIT is all or nothing, and a stream
of a session ends when its connection is returned to the pool.
"""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, delete, func, insert, inspect, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session, selectinload

from .models import DDL, READS, WRITES, Child, Parent, filled, statement


@dataclass
class Block:
    """A block of a program: its savepoints and streams. ``said`` names the step's action."""

    rng: random.Random
    autocommit: bool
    said: list[object] = field(default_factory=list)
    savepoints: list[Any] = field(default_factory=list)
    streams: list[Any] = field(default_factory=list)

    def say(self, what: str) -> str:
        self.said.append(what)
        return what

    def write(self) -> str:
        return self.say(filled(self.rng, self.rng.choice(WRITES)))

    def read(self) -> str:
        return self.say(filled(self.rng, self.rng.choice(READS)))


# Python 3.10's ``rollback()`` resets all cursors, which ends a stock engine's streams.
_ROLLBACK_RESETS = sys.version_info < (3, 11)

Step = Callable[[Any, Block], Awaitable[object]]


def rows(result: Any) -> object:
    return [tuple(row) for row in result.all()] if result.returns_rows else result.rowcount


async def raw_of(connection: AsyncConnection) -> Any:
    return (await connection.get_raw_connection()).driver_connection


# -- on a connection ------------------------------------------------------------------------------


async def execute(connection: AsyncConnection, block: Block) -> object:
    return rows(await connection.execute(text(block.say(statement(block.rng)))))


async def execute_driver_sql(connection: AsyncConnection, block: Block) -> object:
    return rows(await connection.exec_driver_sql(block.say(statement(block.rng))))


async def execute_many(connection: AsyncConnection, block: Block) -> object:
    values = [{"n": block.rng.randrange(50)} for _ in range(block.rng.randrange(1, 4))]
    sql = "INSERT INTO parents (number) VALUES (:n)"
    return rows(await connection.execute(text(sql), values))


async def insert_many_values(connection: AsyncConnection, block: Block) -> object:
    values = [{"number": block.rng.randrange(50)} for _ in range(block.rng.randrange(1, 5))]
    return rows(await connection.execute(insert(Parent).returning(Parent.id), values))


async def change_schema(connection: AsyncConnection, block: Block) -> object:
    sql = block.say(filled(block.rng, block.rng.choice(DDL)))
    try:
        return rows(await connection.execute(text(sql)))
    finally:
        await connection.commit()
        block.savepoints.clear()


async def commit(executor: AsyncConnection | AsyncSession, _: Block) -> None:
    await executor.commit()


async def rollback(executor: AsyncConnection | AsyncSession, _: Block) -> None:
    await executor.rollback()


async def begin(executor: AsyncConnection | AsyncSession, _: Block) -> None:
    await executor.begin()


async def begin_savepoint(executor: AsyncConnection | AsyncSession, block: Block) -> None:
    await executor.execute(text("UPDATE parents SET number = number WHERE id = 1"))
    block.savepoints.append(await executor.begin_nested())


async def end_savepoint(_: object, block: Block) -> None:
    if block.savepoints:
        savepoint = block.savepoints.pop()
        await (savepoint.commit() if block.rng.random() < 0.5 else savepoint.rollback())


async def stream(executor: AsyncConnection | AsyncSession, block: Block) -> object:
    result = await executor.stream(text("SELECT id, number FROM parents ORDER BY id"))
    found = [tuple(row) for row in await result.fetchmany(2)]
    if block.rng.random() < 0.5 or isinstance(executor, AsyncSession) or _ROLLBACK_RESETS:
        await result.close()
    else:
        block.streams.append(result)
    return found


async def read_on(_: object, block: Block) -> object:
    if not block.streams:
        return None
    return [tuple(row) for row in await block.streams[-1].fetchmany(1)]


async def partitions(connection: AsyncConnection, _: Block) -> object:
    result = await connection.stream(
        text("SELECT id FROM parents ORDER BY id"), execution_options={"yield_per": 2}
    )
    return [[tuple(row) for row in some] async for some in result.partitions()]


async def execute_raw(connection: AsyncConnection, block: Block) -> object:
    raw = await raw_of(connection)
    cursor = await raw.execute(block.read() if block.rng.random() < 0.5 else block.write())
    found = [tuple(row) for row in await cursor.fetchall()]
    await cursor.close()
    return found, cursor.rowcount, cursor.description


async def execute_many_raw(connection: AsyncConnection, _: Block) -> object:
    raw = await raw_of(connection)
    cursor = await raw.executemany("INSERT INTO parents (number) VALUES (?)", [(1,), (2,)])
    return cursor.rowcount


async def execute_script(connection: AsyncConnection, _: Block) -> None:
    await (await raw_of(connection)).executescript("UPDATE parents SET number = 9 WHERE id = 1;")


async def end_raw(connection: AsyncConnection, block: Block) -> None:
    raw = await raw_of(connection)
    await (raw.commit() if block.rng.random() < 0.5 else raw.rollback())


async def ask_raw(connection: AsyncConnection, _: Block) -> object:
    raw = await raw_of(connection)
    return raw.isolation_level, raw.row_factory, raw.text_factory, raw.in_transaction


async def register_raw(connection: AsyncConnection, _: Block) -> object:
    raw = await raw_of(connection)
    await raw.create_function("thrice", 1, lambda value: value * 3)
    return await raw.execute_fetchall("SELECT thrice(2)")


async def dump(connection: AsyncConnection, _: Block) -> object:
    return [line async for line in (await raw_of(connection)).iterdump()]


async def use_cursor(connection: AsyncConnection, block: Block) -> object:
    sql = block.read() if block.rng.random() < 0.5 else block.write()

    def use(sync: Connection) -> object:
        cursor = sync.connection.cursor()
        cursor.execute(sql)
        fetched = cursor.fetchone(), cursor.fetchmany(1), cursor.fetchall()
        cursor.close()
        # SQLAlchemy 2.0's cursor leaves the row count at -1 if there are columns.
        return cursor.description, fetched, cursor.rowcount if cursor.description is None else None

    return await connection.run_sync(use)


async def end_below(connection: AsyncConnection, block: Block) -> None:
    ends = block.rng.choice(["commit", "rollback"])
    await connection.run_sync(lambda sync: getattr(sync.connection, ends)())


async def choose_level(connection: AsyncConnection, block: Block) -> None:
    level = block.rng.choice(["AUTOCOMMIT", "SERIALIZABLE"])
    await connection.execution_options(isolation_level=level)


async def ask(connection: AsyncConnection, _: Block) -> object:
    inside = connection.in_transaction(), connection.in_nested_transaction(), connection.closed
    return inside, await connection.get_isolation_level()


async def reflect(connection: AsyncConnection, _: Block) -> object:
    def look(sync: Connection) -> object:
        return inspect(sync).get_table_names(), inspect(sync).get_foreign_keys("children")

    return await connection.run_sync(look)


async def detach(connection: AsyncConnection, _: Block) -> None:
    await connection.run_sync(lambda sync: sync.detach())


async def invalidate(executor: AsyncConnection | AsyncSession, block: Block) -> None:
    block.savepoints.clear()
    block.streams.clear()
    await executor.invalidate()
    gc.collect()  # a connection that was detached is lost, and keeps its lock until it is collected


# -- with a session -------------------------------------------------------------------------------


async def add(session: AsyncSession, block: Block) -> None:
    name = block.rng.choice([None, f"n{block.rng.randrange(6)}"])
    children = [Child() for _ in range(block.rng.randrange(3))]
    session.add(Parent(number=block.rng.randrange(100), name=name, children=children))


async def flush(session: AsyncSession, _: Block) -> None:
    await session.flush()


async def change(session: AsyncSession, block: Block) -> object:
    found = await session.get(Parent, block.rng.randrange(1, 8))
    if found is not None:
        found.number = block.rng.randrange(100)
    return found is not None


async def remove(session: AsyncSession, block: Block) -> None:
    options = [selectinload(Parent.children)]
    found = await session.get(Parent, block.rng.randrange(1, 8), options=options)
    if found is not None:
        await session.delete(found)


async def merge(session: AsyncSession, block: Block) -> object:
    return (await session.merge(Parent(id=block.rng.randrange(1, 8), number=7))).number


async def load(session: AsyncSession, _: Block) -> object:
    query = select(Parent).options(selectinload(Parent.children)).order_by(Parent.id)
    found = await session.scalars(query.execution_options(populate_existing=True))
    return [(one.id, one.number, one.name, len(one.children)) for one in found]


async def lock(session: AsyncSession, block: Block) -> object:
    number = block.rng.randrange(1, 8)
    return await session.scalar(select(Parent.id).where(Parent.id == number).with_for_update())


async def update_all(session: AsyncSession, _: Block) -> object:
    changed = update(Parent).where(Parent.id < 4).values(number=Parent.number + 1)
    return rows(await session.execute(changed))


async def delete_returning(session: AsyncSession, block: Block) -> object:
    parent = block.rng.randrange(1, 8)
    gone = delete(Child).where(Child.parent_id == parent).returning(Child.id)
    return sorted((await session.scalars(gone)).all())


async def in_sync(session: AsyncSession, _: Block) -> object:
    def count(sync: Session) -> object:
        return sync.scalar(select(func.count(Parent.id)))

    return await session.run_sync(count)


async def connection_of(session: AsyncSession, block: Block) -> object:
    connection = await session.connection()
    return await block.rng.choice([execute_raw, execute_many_raw, execute])(connection, block)


async def close(session: AsyncSession, block: Block) -> None:
    block.savepoints.clear()
    await session.close()


ON_BOTH: list[Step] = [commit, rollback, begin, begin_savepoint, end_savepoint, stream, read_on]
ON_CONNECTIONS: list[Step] = [
    *([execute] * 8),
    *(ON_BOTH * 2),
    *(execute_driver_sql, execute_many, insert_many_values, change_schema, partitions),
    *(execute_raw, execute_raw, execute_many_raw, execute_script, end_raw, ask_raw, register_raw),
    *(dump, use_cursor, end_below, choose_level, ask, reflect, detach, invalidate),
]
ON_SESSIONS: list[Step] = [
    *(ON_BOTH * 2),
    *(add, add, flush, change, change, remove, merge, load, load, lock, update_all),
    *(delete_returning, in_sync, connection_of, close, invalidate, execute, execute),
]
