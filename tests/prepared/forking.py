"""A program that forks after prepared reads. ``python -m tests.prepared.forking PATH``."""

from __future__ import annotations

import asyncio
import sys

from sqlalchemy import select

from sa_sqlite_pool import SQLiteDatabase
from tests.fork_programs import ended, fork
from tests.helpers import Item, create_items
from tests.programs import say


def main(path: str) -> None:
    db = SQLiteDatabase(path, readers=2)
    read = db.prepare(select(Item.id))

    async def begin() -> None:
        await db.open()
        await create_items(db.writer_engine)
        await count()

    async def count() -> int:
        return max([len(await read.all()) for _ in range(4)])

    asyncio.run(begin())
    child = fork(lambda: say("child", asyncio.run(count())))
    status = ended(child)
    say("parent", asyncio.run(count()))
    say("exit", status)
    asyncio.run(db.close())


if __name__ == "__main__":
    main(sys.argv[1])
