"""One process: ``python -m tests.checkpoints.process DATABASE JOURNAL SEED``.

It prints ``ready``, works until its standard input ends, and prints its counts. Its input also ends
with its parent, so it never outlives it.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import json
import logging
import os
import signal
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random

from sa_sqlite_pool import SQLiteDatabase, WalSettings

from .journal import Journal
from .window import Window, why_not
from .work import READERS, Work

_SECONDS = 20.0  # for turns and locks; far more than the turns of all tasks take
_WINDOW_SECONDS = 0.003  # about the duration of a transaction

_KIB = 1024
# So small that the log restarts after some transactions; each process has its own limits.
_LOGS = [
    WalSettings(soft_limit=16 * _KIB, hard_limit=64 * _KIB, reader_gap=0.5),
    WalSettings(soft_limit=32 * _KIB, hard_limit=32 * _KIB, reader_gap=1.0),
    WalSettings(soft_limit=16 * _KIB, hard_limit=256 * _KIB, reader_gap=0.5),
]


async def main(database: Path, journal: Path, seed: str) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, _tell_where)
    rng = Random(seed)
    db = SQLiteDatabase(
        database,
        wal=rng.choice(_LOGS),
        # The disk is slow, and is not tested here. Only checkpoints map the file; see _slowly.
        pragmas={"synchronous": "OFF", "mmap_size": 0},
        readers=READERS,
        write_timeout=_SECONDS,
        read_timeout=_SECONDS,
    )
    with closing(Journal(journal)) as book:
        work = Work(db, book, seed)

        def stop() -> None:
            loop.remove_reader(sys.stdin)
            work.stop()

        with _slowly(database, work.counts, rng):
            async with db:
                loop.add_reader(sys.stdin, stop)
                _say("ready")
                await work.run()
    _say(json.dumps(work.counts))


def _slowly(
    database: Path, counts: Counter[str], rng: Random
) -> contextlib.AbstractContextManager[object]:
    """Make checkpoints pause at the moment in which they can lose commits."""

    def linger() -> None:
        counts["windows"] += 1
        # A commit of another process is what must not happen here: such a wait needs a time limit.
        time.sleep(rng.uniform(0, _WINDOW_SECONDS))

    return Window(database, linger) if why_not() is None else contextlib.nullcontext()


def unexpected(record: logging.LogRecord) -> bool:
    """Return whether a warning is unexpected: checkpoints are held back, but no outsider writes."""
    return record.levelno > logging.WARNING or "another program" in record.getMessage()


def _tell_where() -> None:
    """Print the stacks of everything that hangs."""
    for task in asyncio.all_tasks():
        task.print_stack(file=sys.stderr)
    faulthandler.dump_traceback(all_threads=True)
    os._exit(1)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - what the parent reads


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("sa_sqlite_pool").addFilter(unexpected)
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
