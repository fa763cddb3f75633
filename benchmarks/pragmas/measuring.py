"""Reads with different settings, each in a separate process, through ``run_read_core()``.

The settings take turns, and the default comes first.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import resource
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from sqlalchemy import Connection, text

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.settings import PragmaValue

MIB = 2**20
_PAYLOAD = 1000
_BYTES_A_ROW = 1150  # including its key, its number and its share of the page overhead
_SORTED_ROWS = 400_000
_READS = 20_000

SETTINGS: Mapping[str, Mapping[str, PragmaValue]] = {
    "MEMORY, no mmap": {},
    "temp_store = FILE": {"temp_store": "FILE"},
    "mmap_size = 256 MiB": {"mmap_size": 256 * MIB},
    "mmap_size = 8 GiB": {"mmap_size": 8192 * MIB},
}
"""Names, and the settings in addition to this package's defaults."""

_READ = text("SELECT n FROM things WHERE id = :id")
_SCAN = text("SELECT sum(length(payload)) FROM things")
_SORT = text("SELECT n, payload FROM things WHERE id <= :most ORDER BY n LIMIT -1 OFFSET :most")
_GROUP = text("SELECT count(*) FROM (SELECT DISTINCT n FROM things WHERE id <= :most)")


def _read(connection: Connection, rows: int) -> None:
    keys = random.Random(1)
    for _ in range(_READS):
        connection.execute(_READ, {"id": keys.randint(1, rows)}).one()


def _scan(connection: Connection, _rows: int) -> None:
    connection.execute(_SCAN).one()


def _sort(connection: Connection, rows: int) -> None:
    connection.execute(_SORT, {"most": min(rows, _SORTED_ROWS)}).all()


def _group(connection: Connection, rows: int) -> None:
    connection.execute(_GROUP, {"most": min(rows, _SORTED_ROWS)}).one()


LOADS: Mapping[str, Callable[[Connection, int], None]] = {
    f"{_READS:,} point reads": _read,
    "scan of the file": _scan,
    "sort by a column without an index": _sort,
    "DISTINCT without an index": _group,
}


class Cost(NamedTuple):
    """The cost of one run: process time and elapsed time in seconds, peak memory in bytes."""

    cpu: float
    wall: float
    memory: int


class Figure(NamedTuple):
    """Medians of one setting under one load; ``ratio`` is its process time over the default's."""

    file: str
    load: str
    setting: str
    cost: Cost
    ratio: float


def fill(path: Path, mebibytes: int) -> int:
    """Create a file of approximately that size, in WAL mode; return its number of rows."""
    rows = max(1, mebibytes * MIB // _BYTES_A_ROW)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, n INTEGER, payload TEXT)")
        numbers = random.Random(1)
        connection.executemany(
            "INSERT INTO things (n, payload) VALUES (?, ?)",
            ((numbers.getrandbits(40), "x" * _PAYLOAD) for _ in range(rows)),
        )
    return rows


def measure(mebibytes: Sequence[int], rounds: int) -> list[Figure]:
    """Return the medians of ``rounds`` rounds, after one that is not counted."""
    with TemporaryDirectory(prefix="benchmarks-") as directory:
        return [
            figure for size in mebibytes for figure in _on_a_file(Path(directory), size, rounds)
        ]


def _on_a_file(directory: Path, mebibytes: int, rounds: int) -> list[Figure]:
    path = directory / f"{mebibytes}.db"
    rows = fill(path, mebibytes)
    found: dict[tuple[str, str], list[Cost]] = {}
    for number in range(rounds + 1):
        for load in LOADS:
            for setting in SETTINGS:
                cost = _in_a_process(path, rows, load, setting)
                if number > 0:
                    found.setdefault((load, setting), []).append(cost)
    path.unlink()
    medians = {key: _median(costs) for key, costs in found.items()}
    default = next(iter(SETTINGS))
    return [
        Figure(f"{mebibytes:,} MiB", load, setting, cost, cost.cpu / medians[load, default].cpu)
        for (load, setting), cost in medians.items()
    ]


def _median(costs: list[Cost]) -> Cost:
    cpu, wall, memory = map(statistics.median, zip(*costs, strict=True))
    return Cost(cpu, wall, int(memory))


def _in_a_process(path: Path, rows: int, load: str, setting: str) -> Cost:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(run, (path, rows, load, setting))


def run(path: Path, rows: int, load: str, setting: str) -> Cost:
    """Run a load once in this process."""
    return asyncio.run(_run(path, rows, LOADS[load], SETTINGS[setting]))


async def _run(
    path: Path,
    rows: int,
    load: Callable[[Connection, int], None],
    pragmas: Mapping[str, PragmaValue],
) -> Cost:
    async with SQLiteDatabase(path, pragmas=pragmas) as db:
        await db.run_read_core(lambda connection: connection.execute(_READ, {"id": 1}).one())
        cpu, wall = time.process_time(), time.perf_counter()
        await db.run_read_core(load, rows)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Cost(cpu, wall, most if sys.platform == "darwin" else most * 1024)
