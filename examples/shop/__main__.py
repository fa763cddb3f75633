"""The demo: the same shop on two engines, under the same load, with the books checked.

`python -m examples.shop`
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .files import sqlite_file
from .processes import ShopError
from .report import fail_on_problems, print_report
from .runs import Load, Run, run_all
from .seed import seed
from .stores import EngineKind


class Choice(str, Enum):
    """Which engines to run."""

    BOTH = "both"
    STOCK = "stock"
    SA_SQLITE_POOL = "sa_sqlite_pool"

    @property
    def engines(self) -> tuple[EngineKind, ...]:
        """The engines, in the order of their runs."""
        return tuple(EngineKind) if self is Choice.BOTH else (EngineKind(self.value),)


def main(
    *,
    seconds: Annotated[float, typer.Option(min=1, help="Measured time for each engine.")] = 10,
    readers: Annotated[int, typer.Option(min=0, help="Customers who look around.")] = 40,
    writers: Annotated[int, typer.Option(min=0, help="Customers who order.")] = 16,
    pause: Annotated[
        float, typer.Option(min=0, help="Mean seconds between two requests of a customer.")
    ] = 0.15,
    products: Annotated[int, typer.Option(min=100, help="Size of the catalogue.")] = 50_000,
    engine: Annotated[Choice, typer.Option(help="Which engine to run.")] = Choice.BOTH,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the databases.")] = False,
) -> None:
    """Run a shop under load on stock SQLAlchemy and on sa_sqlite_pool, and check its books."""
    # Python's default for SIGTERM skips every `finally`, and would leave the server behind.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    console = Console()
    folder = Path(tempfile.mkdtemp(prefix="shop-"))
    try:
        runs = _run_all(console, folder, products, engine, Load(seconds, pause, readers, writers))
    except ShopError as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from error
    finally:
        if keep:
            console.print(f"databases and logs: {folder}")
        else:
            shutil.rmtree(folder)
    print_report(console, runs)
    fail_on_problems(console, runs)


def _run_all(
    console: Console, folder: Path, products: int, choice: Choice, load: Load
) -> list[Run]:
    template = folder / "seed.db"
    with console.status(f"seeding {products:,} products"):
        seeded = seed(template, products=products)
    console.print(
        f"{load.readers + load.writers} customers for {load.seconds:g} s on each engine; stock is "
        "SQLAlchemy's own create_async_engine()",
        highlight=False,
    )
    return run_all(
        console, seeded, (sqlite_file(kind, template, seeded, load) for kind in choice.engines)
    )


if __name__ == "__main__":
    typer.run(main)
