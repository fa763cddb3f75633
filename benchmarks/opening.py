"""The processor time of opening: an engine, its first connection, one read, and ``dispose()``.

``python -m benchmarks.opening``: stock and each door open equally many connections, on a file that
is already in WAL mode and on a new file, where a table is created first. A stock engine leaves a
new file in SQLite's own mode; *in WAL mode*, it switches the file, as applications that want WAL
do, and as each door of the package does. The contenders alternate.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

import typer
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sa_sqlite_pool import ReaderPool, SQLiteDatabase, SQLitePool, WriterPool

from .report.output import console, table

READ = text("SELECT count(*) FROM items")
_CREATE = "CREATE TABLE items (id INTEGER PRIMARY KEY)"

Open = Callable[[Path, bool], Awaitable[None]]


class Contender(NamedTuple):
    """One contender; ``like`` names the stock contender that opens equally many connections."""

    name: str
    like: str
    open: Open
    creates: bool = True


class Figure(NamedTuple):
    """Medians of one contender, in milliseconds, and its processor time as a ratio to stock's."""

    kind: str
    name: str
    cpu: float
    wall: float
    ratio: float


async def _use(engine: AsyncEngine, create: bool) -> None:
    if create:
        async with engine.begin() as connection:
            await connection.execute(text(_CREATE))
    async with engine.connect() as connection:
        await connection.execute(READ)


def _engines(count: int, *, to_wal: bool = False, **options: Any) -> Open:
    async def use(database: Path, create: bool) -> None:
        url = f"sqlite+aiosqlite:///{database}"
        engines = [create_async_engine(url, **options) for _ in range(count)]
        if to_wal:
            for engine in engines:
                event.listen(engine.sync_engine, "connect", _switch_to_wal)
        for number, engine in enumerate(engines):
            await _use(engine, create and number == 0)
        for engine in engines:
            await engine.dispose()

    return use


def _switch_to_wal(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


async def _facade(database: Path, create: bool) -> None:
    async with SQLiteDatabase(database) as db:
        if create:
            async with db.writer_engine.begin() as connection:
                await connection.execute(text(_CREATE))
        for engine in (db.writer_engine, db.reader_engine):
            await _use(engine, create=False)


CONTENDERS: Sequence[Contender] = (
    Contender("stock", "stock", _engines(1)),
    Contender("stock, in WAL mode", "stock", _engines(1, to_wal=True)),
    Contender("SQLitePool", "stock", _engines(1, poolclass=SQLitePool)),
    Contender("WriterPool", "stock", _engines(1, poolclass=WriterPool)),
    Contender("ReaderPool", "stock", _engines(1, poolclass=ReaderPool), creates=False),
    Contender("stock, two engines", "stock, two engines", _engines(2)),
    Contender("two engines, in WAL mode", "stock, two engines", _engines(2, to_wal=True)),
    Contender("SQLiteDatabase", "stock, two engines", _facade),
)


def measure(rounds: int) -> list[Figure]:
    """Return the medians of ``rounds`` rounds, after one that is not counted."""
    with TemporaryDirectory(prefix="benchmarks-") as directory:
        database = Path(directory) / "one.db"
        return [
            figure
            for create in (False, True)
            for figure in asyncio.run(_measure(database, create, rounds))
        ]


async def _measure(database: Path, create: bool, rounds: int) -> list[Figure]:
    contenders = [one for one in CONTENDERS if one.creates or not create]
    seconds: dict[str, list[tuple[float, float]]] = {one.name: [] for one in contenders}
    for number in range(rounds + 1):
        for contender in contenders:
            _start_anew(database, create)
            found = await _timed(contender.open(database, create))
            if number > 0:
                seconds[contender.name].append(found)
    medians = {
        name: [statistics.median(column) * 1000 for column in zip(*found, strict=True)]
        for name, found in seconds.items()
    }
    kind = "a new file" if create else "an existing file"
    return [
        Figure(kind, one.name, cpu, wall, cpu / medians[one.like][0])
        for one in contenders
        for cpu, wall in [medians[one.name]]
    ]


def _start_anew(database: Path, create: bool) -> None:
    for file in database.parent.iterdir():
        file.unlink()
    if not create:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(_CREATE)


async def _timed(opening: Awaitable[None]) -> tuple[float, float]:
    """Return the process time and the elapsed time of ``opening``, in seconds."""
    gc.collect()  # the garbage of an earlier contender is not this one's work
    cpu, clock = time.process_time(), time.perf_counter()
    await opening
    return time.process_time() - cpu, time.perf_counter() - clock


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that are measured.")] = 40,
) -> None:
    """Measure what opening an engine or a database costs, beside stock."""
    made = table(
        "opening, one read, dispose (medians)", "", "file", "cpu ms", "wall ms", "ratio to stock"
    )
    for figure in measure(rounds):
        figures = (f"{figure.cpu:.2f}", f"{figure.wall:.2f}", f"{figure.ratio:.2f}")
        made.add_row(figure.name, figure.kind, *figures)
    console().print(made)


if __name__ == "__main__":
    typer.run(main)
