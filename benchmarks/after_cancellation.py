"""The time until a connection serves the next statement after a long one was cancelled.

``python -m benchmarks.after_cancellation --rounds 5``: a statement of ten seconds is cancelled
after 50 ms, and the next one, a short one through the same engine, is timed.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated

import typer
from sqlalchemy import Engine, text
from sqlalchemy.ext.asyncio import AsyncEngine

from .report.output import console, table
from .ways import engines

_COUNT = text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT :steps) "
    "SELECT count(*) FROM n"
)
_TRIAL_STEPS = 300_000
_CANCELLED_AFTER_S = 0.05

Make = Callable[[Path], AsyncEngine]
CONTENDERS: dict[str, Make] = {
    "stock": engines.stock,
    "ReaderPool": engines.readers,
    "WriterPool": engines.writer,
    "SQLitePool": engines.swap_in,
}


@dataclass(slots=True)
class Times:
    """The times of one contender, over all rounds: until the next statement has its result, and
    until the thread of the cancelled statement has finished with it.
    """

    next_ms: list[float] = field(default_factory=list)
    thread_s: list[float] = field(default_factory=list)


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often each contender runs.")] = 5,
    seconds: Annotated[float, typer.Option(help="What the long statement would take.")] = 10.0,
) -> None:
    """Cancel a long statement, and time the next one."""
    found = {name: Times() for name in CONTENDERS}
    with TemporaryDirectory(prefix="benchmarks-") as directory:
        database = Path(directory) / "one.db"
        steps = _steps(engines.synchronous(database), seconds)
        for _ in range(rounds):
            for name, make in CONTENDERS.items():
                asyncio.run(_measure(make(database), steps, found[name]))
    _print(found, rounds, seconds)


def _steps(engine: Engine, seconds: float) -> int:
    """Return how far SQLite counts in that time."""
    with engine.connect() as connection:
        started = perf_counter()
        connection.execute(_COUNT, {"steps": _TRIAL_STEPS})
        trial = perf_counter() - started
    engine.dispose()
    return int(_TRIAL_STEPS * seconds / trial)


async def _measure(engine: AsyncEngine, steps: int, times: Times) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    threads = set(threading.enumerate())
    long = asyncio.create_task(_run(engine, steps))
    await asyncio.sleep(_CANCELLED_AFTER_S)
    cancelled = perf_counter()
    long.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await long
    await _run(engine, 1)
    times.next_ms.append((perf_counter() - cancelled) * 1000)
    await engine.dispose()
    for thread in threads - {threading.main_thread()}:
        await asyncio.to_thread(thread.join)
    times.thread_s.append(perf_counter() - cancelled)


async def _run(engine: AsyncEngine, steps: int) -> None:
    async with engine.connect() as connection:
        await connection.execute(_COUNT, {"steps": steps})


def _print(found: dict[str, Times], rounds: int, seconds: float) -> None:
    title = f"a statement of {seconds:g} s, cancelled after 50 ms; {rounds} rounds"
    made = table(
        title, "contender", "next statement, ms", "worst, ms", "until its thread is free, s"
    )
    for name, times in found.items():
        median, worst = statistics.median(times.next_ms), max(times.next_ms)
        free = statistics.median(times.thread_s)
        made.add_row(name, f"{median:.1f}", f"{worst:.1f}", f"{free:.2f}")
    console().print(made)


if __name__ == "__main__":
    typer.run(main)
