"""``python -m benchmarks.copying``: copies 1 GiB to a server that it starts, and verifies it."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import create_async_engine

from examples.local_postgresql import PostgreSQL, create_primary, missing
from sa_sqlite_pool import CopyReport, SQLiteDatabase, copy_to

from ..report.output import console, table
from .data import fill, metadata

_MIB = 1024 * 1024

out = console()


def main(
    rows: Annotated[int, typer.Option(min=100, help="Of both tables.")] = 2_640_000,
    driver: Annotated[str, typer.Option(help="asyncpg or psycopg.")] = "asyncpg",
) -> None:
    """Copy a file to PostgreSQL, and report rows a second in each phase."""
    # Python's default for SIGTERM skips every `finally`, and would leave the server behind.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    if (reason := missing()) is not None:
        out.print(reason)
        raise typer.Exit(1)
    with tempfile.TemporaryDirectory(prefix="copying-") as folder:
        Path(folder).chmod(0o755)  # the server runs as another user
        path = Path(folder) / "app.db"
        began = time.perf_counter()
        fill(path, rows)
        size = path.stat().st_size / _MIB
        took = time.perf_counter() - began
        out.print(f"{rows:,} rows, {size:,.0f} MiB, written in {took:.0f} s")
        # The pages of the file are in memory already; only Python's memory is measured.
        before = _memory()
        server = create_primary(Path(folder) / "server", shared_buffers="128MB", max_wal_size="4GB")
        try:
            report = asyncio.run(_copy(path, server, driver))
        finally:
            server.remove()
    _print(report, driver, before)


async def _copy(path: Path, server: PostgreSQL, driver: str) -> CopyReport:
    engine = create_async_engine(server.url(driver))
    try:
        async with SQLiteDatabase(path) as db:
            return await copy_to(db, engine, metadata)
    finally:
        await engine.dispose()


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _MIB


def _print(report: CopyReport, driver: str, before: float) -> None:
    phases = [(phase, seconds, report.rows / seconds) for phase, seconds in report.seconds.items()]
    total = sum(report.seconds.values())
    phases.append(("all", total, report.rows / total))
    figures = table(f"copy_to(), {driver}", "phase", "seconds", "rows/s")
    for phase, seconds, rate in phases:
        figures.add_row(phase, f"{seconds:.1f}", f"{rate:,.0f}")
    out.print(figures)
    out.print(
        f"{report.rows:,} rows read back from the server and compared: equal; "
        f"peak memory {_memory():.0f} MiB, of which {before:.0f} MiB before the copy"
    )


if __name__ == "__main__":
    typer.run(main)
