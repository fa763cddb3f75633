"""One process: it works until it is told to stop, or killed."""

from __future__ import annotations

import asyncio
import logging
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

from sa_sqlite_pool import WalSettings
from tests.checkpoints.process import unexpected
from tests.children import heard
from tests.programs import Door

from .diary import Diary
from .work import Work

# So small that kills hit checkpoints, too.
_LOG = WalSettings(soft_limit=512 * 1024, hard_limit=2 * 1024 * 1024)


def main(pipe: Connection, door: str, database: Path, diary: Path, seed: str) -> None:
    """Send ``ready``, work from the first message received to the second, and send ``closed``."""
    logging.basicConfig(filename=complaints(diary), level=logging.WARNING)
    logging.getLogger("sa_sqlite_pool").addFilter(unexpected)
    asyncio.run(_work(pipe, door, database, diary, seed))


def complaints(diary: Path) -> Path:
    """Return the path to which the process of a diary logs warnings."""
    return diary.with_suffix(".log")


async def _work(pipe: Connection, name: str, database: Path, diary: Path, seed: str) -> None:
    # The disk is slow, and is not tested: a kill leaves written data in the system's cache.
    door = Door(name, str(database), pragmas={"synchronous": "OFF"}, wal=_LOG)
    with closing(Diary(diary)) as book:
        work = Work(door, book, seed)
        await door.open()
        await work.once()
        pipe.send("ready")
        await heard(pipe)
        working = asyncio.create_task(work.run())
        stopped = asyncio.create_task(heard(pipe))
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        work.stop()
        await working
        await stopped
        await door.close()
    pipe.send("closed")
