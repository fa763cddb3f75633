"""The demo: the same shop on SQLite and on PostgreSQL with a replica that lags.

`python -m examples.shop.postgresql`
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from examples.local_postgresql import PostgreSQLError, missing

from ..books import Books
from ..files import sqlite_file
from ..processes import ShopError
from ..report import fail_on_problems
from ..results import LoadResult
from ..runs import Contender, Load, Run, run_all
from ..seed import Seeded, seed
from ..stores import EngineKind
from .report import print_report
from .servers import Servers, running


def main(
    *,
    seconds: Annotated[float, typer.Option(min=1, help="Measured time for each database.")] = 10,
    readers: Annotated[int, typer.Option(min=0, help="Customers who look around.")] = 40,
    writers: Annotated[int, typer.Option(min=0, help="Customers who order.")] = 16,
    pause: Annotated[
        float, typer.Option(min=0, help="Mean seconds between two requests of a customer.")
    ] = 0.15,
    products: Annotated[int, typer.Option(min=100, help="Size of the catalogue.")] = 50_000,
    lag: Annotated[int, typer.Option(min=0, help="Milliseconds that the replica is behind.")] = 50,
) -> None:
    """Run the shop on SQLite, on PostgreSQL, and there without tokens; check all books."""
    console = Console()
    if (reason := missing()) is not None:
        console.print(f"{reason}: pip install 'sa-sqlite-pool[demo-postgresql]'", style="red")
        raise typer.Exit(1)
    load = Load(seconds, pause, readers, writers, own_orders=True)
    try:
        with _folder() as folder:
            runs = _run_all(console, folder, products, load, lag)
    except (ShopError, PostgreSQLError) as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from error
    print_report(console, runs, lag)
    fail_on_problems(console, runs)


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for all files, removed at the end. What ends the demo does so once, and in order."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    folder = Path(tempfile.mkdtemp(prefix="shop-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _end(number: int, _frame: object) -> None:
    # Python's default for SIGTERM skips every `finally`; a second Ctrl-C would interrupt one.
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    sys.exit(128 + number)


def _run_all(console: Console, folder: Path, products: int, load: Load, lag: int) -> list[Run]:
    with running(folder, lag) as servers:
        ports = f"primary on port {servers.primary.port}, replica on port {servers.replica.port}"
        console.print(f"PostgreSQL: {ports}", highlight=False)
        template = folder / "seed.db"
        with console.status(f"seeding {products:,} products, twice"):
            seeded = seed(template, products=products)
            servers.seed(products)
        return run_all(console, seeded, _contenders(servers, template, seeded, load))


def _contenders(
    servers: Servers, template: Path, seeded: Seeded, load: Load
) -> Iterator[Contender]:
    """Each is made when its turn comes."""
    yield replace(sqlite_file(EngineKind.SA_SQLITE_POOL, template, seeded, load), name="SQLite")
    yield _postgresql("PostgreSQL", servers, seeded, load, tokens=True)
    shorter = replace(load, seconds=max(1.0, load.seconds / 2))
    yield _postgresql("PostgreSQL, no tokens", servers, seeded, shorter, tokens=False)


def _postgresql(
    name: str, servers: Servers, seeded: Seeded, load: Load, *, tokens: bool
) -> Contender:
    database = f"shop_{'with' if tokens else 'without'}_tokens"
    servers.copy(database)

    def audit(told: LoadResult) -> Books:
        return servers.audit(database, seeded, told)

    settings = servers.settings(database, tokens=tokens)
    log = servers.primary.directory.with_name(f"{database}.log")
    return Contender(name, settings, log, load, audit, must_find=tokens)


if __name__ == "__main__":
    typer.run(main)
