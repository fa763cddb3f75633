"""The command: ``python -m tests.sqlalchemy_suite --only test/engine --processes 2``."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import sqlalchemy
import typer

from tests.commands import fail

from .batches import batches
from .comparison import Comparison, compare
from .differences import known_differences
from .outcomes import Outcomes
from .run import Settings, recorded, run_all
from .source import unpacked

BUILD = Path("build/sqlalchemy-suite")


def main(
    only: Annotated[
        list[str] | None, typer.Option(help="Folders or files of SQLAlchemy's `test/`.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="How many run at the same time.")] = 2,
    test_timeout: Annotated[float, typer.Option(help="Seconds that a test may take.")] = 60,
    run_stock: Annotated[
        bool, typer.Option(help="Or take what the last run of the stock pool has recorded.")
    ] = True,
) -> None:
    """Run SQLAlchemy's own tests on the stock pool and on SQLitePool; fail where only ours does."""
    version = sqlalchemy.__version__
    directory = (BUILD / version).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    source = unpacked(version, directory)
    work = batches(source, only or ())
    typer.echo(f"SQLAlchemy {version}, SQLite {sqlite3.sqlite_version}, {len(work)} batches")

    def run(pool: str, files: Sequence[Sequence[Path]], name: str) -> Outcomes:
        started = time.monotonic()
        settings = Settings(source, pool, test_timeout)
        outcomes = run_all(
            settings, files, directory / name, processes=processes, on_progress=typer.echo
        )
        _show(name, outcomes, time.monotonic() - started)
        return outcomes

    if run_stock:
        stock = run("stock", work, "stock")
    else:
        names = {f"{path.relative_to(source)}" for batch in work for path in batch}
        stock = recorded(directory / "stock").of_files(names)
    ours = run("SQLitePool", work, "ours")
    differences = known_differences(version)
    comparison = compare(stock, ours, differences)
    if comparison.unexpected:
        # A test that measures time may fail on a busy machine. Its whole file is run again, since a
        # test may depend on earlier ones there. A test that has hung is not run again.
        names = {name.partition("::")[0] for name in comparison.unexpected}
        files = [[source / name] for name in sorted(names) if (source / name).exists()]
        again = run("SQLitePool", files, "again")
        unsteady = (comparison.unexpected.keys() & again.passed) - ours.ended_early
        for name in sorted(unsteady):
            typer.echo(f"passed when it was run again: {name}")
        ours.passed |= unsteady
        comparison = compare(stock, ours, differences)
    _report(comparison)


def _show(name: str, outcomes: Outcomes, seconds: float) -> None:
    typer.echo(
        f"{name}: {len(outcomes.passed)} passed, {len(outcomes.failed)} failed, "
        f"{len(outcomes.skipped)} skipped, {seconds:.0f} s, "
        f"pools: {', '.join(sorted(outcomes.pools))}"
    )


def _report(comparison: Comparison) -> None:
    for name, text in comparison.unexpected.items():
        typer.echo(f"\n{name}\n{text}")
    for name in comparison.better:
        typer.echo(f"fails on stock, passes on SQLitePool: {name}")
    for name in comparison.outdated:
        typer.echo(f"listed in differences.txt, but passes: {name}")
    typer.echo(f"{len(comparison.known)} known differences")
    for name in comparison.unexpected:
        typer.echo(f"passes on the stock pool alone: {name}")
    if comparison.unexpected:
        fail(f"{len(comparison.unexpected)} tests pass on the stock pool alone")


if __name__ == "__main__":
    typer.run(main)
