"""The cost of the live page: processor time beside a load, and response times.

``python -m benchmarks.live_page``: a server with the page in this process, beside tasks that run
1,000 statements per second, and a viewer in another process. Periods with and without the viewer
alternate; a sample is also timed separately, since two periods on a busy machine differ by more.
"""

from __future__ import annotations

import asyncio
import http.client
import multiprocessing
import socket
import statistics
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, NamedTuple

import typer
import uvicorn
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.routing import Mount

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.integrations.live import live_page
from sa_sqlite_pool.integrations.live.feed import Sample
from sa_sqlite_pool.integrations.live.history import History

from .report.output import console, table

TASKS = 20
READ = text("SELECT value FROM items WHERE id = :id")
WRITE = text("UPDATE items SET value = value + 1 WHERE id = :id")
OTHERS = 60
"""The number of other texts that have run, to fill the list of the slowest."""


class Answers(NamedTuple):
    """Milliseconds until the page was loaded, and until the first event of its feed."""

    page_ms: list[float]
    feed_ms: list[float]


class Cost(NamedTuple):
    """Processor time in milliseconds, and the number of statements per second."""

    sample_ms: float
    without: float
    with_viewer: float
    statements: float


@asynccontextmanager
async def _served(db: SQLiteDatabase) -> AsyncIterator[int]:
    app = Starlette(routes=[Mount("/sqlite", live_page(db, allow=lambda _request: True))])
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:  # noqa: ASYNC110, it has no event for that
            await asyncio.sleep(0.01)
        yield int(listener.getsockname()[1])
        server.should_exit = True
        await serving


@asynccontextmanager
async def _load(db: SQLiteDatabase, rate: float) -> AsyncIterator[None]:
    """Run ``rate`` statements per second evenly from 20 tasks; one in twenty writes."""
    async with db.write() as session:
        await session.execute(text("CREATE TABLE items (id INTEGER PRIMARY KEY, value INTEGER)"))
        for number in range(100):
            await session.execute(text(f"INSERT INTO items VALUES ({number}, 0)"))
    async with db.read() as session:
        for number in range(OTHERS):
            await session.execute(text(f"SELECT count(*), {number} FROM items"))
    tasks = [asyncio.create_task(_visit(db, number, TASKS / rate)) for number in range(TASKS)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _visit(db: SQLiteDatabase, number: int, pause: float) -> None:
    loop = asyncio.get_running_loop()
    due = loop.time() + pause * number / TASKS
    while True:
        await asyncio.sleep(max(0.0, due - loop.time()))
        due += pause
        if number == 0:
            async with db.write() as session:
                await session.execute(WRITE, {"id": number})
        else:
            async with db.reader_engine.connect() as connection:
                (await connection.execute(READ, {"id": number})).scalar_one()


def look(port: int, seconds: float) -> Answers:
    """Load the page and its feed repeatedly for ``seconds``, in the viewer's process."""
    answers = Answers([], [])
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        answers.page_ms.append(_timed(port, "/sqlite/", lambda line: line == b"</html>\n"))
        answers.feed_ms.append(
            _timed(port, "/sqlite/feed", lambda line: line.startswith(b"data:"), until)
        )
    return answers


def _timed(
    port: int, path: str, found: Callable[[bytes], bool], until: float | None = None
) -> float:
    """Return the milliseconds until the first such line; continue reading for five seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    began = time.perf_counter()
    connection.request("GET", path)
    answer = connection.getresponse()
    while not found(answer.readline()):
        pass
    taken = time.perf_counter() - began
    stay = min(until or 0.0, time.monotonic() + 5)
    while time.monotonic() < stay:
        answer.readline()
    connection.close()
    return taken * 1000


async def _measure(path: Path, rate: float, seconds: float, rounds: int) -> tuple[Cost, Answers]:
    spawn = multiprocessing.get_context("spawn")
    loop, answers = asyncio.get_running_loop(), Answers([], [])
    without, watched, ran = [], [], []
    with ProcessPoolExecutor(1, mp_context=spawn) as viewer:
        async with SQLiteDatabase(path) as db, _load(db, rate), _served(db) as port:
            await loop.run_in_executor(viewer, look, port, 0.1)
            for _ in range(rounds):
                await asyncio.sleep(6)  # until the sampler has ended
                before = db.statistics()
                without.append(await _processor_share(asyncio.sleep(seconds)))
                looking = loop.run_in_executor(viewer, look, port, seconds)
                watched.append(await _processor_share(looking))
                done = db.statistics() - before
                ran.append(sum(e.statements.runs for e in done.engines) / done.seconds)
                found = looking.result()
                answers.page_ms.extend(found.page_ms)
                answers.feed_ms.extend(found.feed_ms)
            sample_ms = await _one_sample(db)
    medians = (statistics.median(figures) for figures in (without, watched, ran))
    return Cost(sample_ms, *medians), answers


async def _processor_share(waiting: asyncio.Future[Answers] | object) -> float:
    """Return the milliseconds of process time per second while ``waiting`` is awaited."""
    cpu, clock = time.process_time(), time.perf_counter()
    await waiting  # type: ignore[misc]
    return 1000 * (time.process_time() - cpu) / (time.perf_counter() - clock)


async def _one_sample(db: SQLiteDatabase) -> float:
    """Return the thread's processor time in milliseconds for a sample and its encoding."""
    history, taken = History("", db.statistics), []
    for number in range(50):
        await asyncio.sleep(0.02)
        began = time.thread_time()
        history.sample(time.time())
        _ = Sample([history], number, "x").step
        taken.append(1000 * (time.thread_time() - began))
    return statistics.median(taken)


def main(
    rate: Annotated[float, typer.Option(min=1, help="Statements a second.")] = 1_000,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each period.")] = 5,
    rounds: Annotated[int, typer.Option(min=1, help="Pairs of periods.")] = 3,
) -> None:
    """Measure what the live page costs beside a load, and how soon it answers."""
    with TemporaryDirectory(prefix="benchmarks-") as directory:
        measured = _measure(Path(directory) / "one.db", rate, seconds, rounds)
        cost, answers = asyncio.run(measured)
    made = table(f"the live page beside {cost.statements:,.0f} statements/s (medians)", "", "")
    made.add_row("a sample a second, of one core", f"{cost.sample_ms / 10:.2f} %")
    made.add_row("process time without a viewer, of one core", f"{cost.without / 10:.1f} %")
    made.add_row("… with one", f"{cost.with_viewer / 10:.1f} %")
    made.add_row("the page answers after, ms", f"{statistics.median(answers.page_ms):.1f}")
    made.add_row("the feed's first event after, ms", f"{statistics.median(answers.feed_ms):.1f}")
    made.add_row("… the worst, ms", f"{max(answers.feed_ms):.1f}")
    console().print(made)


if __name__ == "__main__":
    typer.run(main)
