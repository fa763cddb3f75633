"""Reads right after writes, on two lagging replicas: the number of stale reads, and the cost.

``python -m benchmarks.freshness --pairs 100000``: at each lag, many clients each write a row and
read it at once, with a token that they carry along, as a browser does with a cookie; half of the
pairs run through asyncpg, half through psycopg. A tenth as many run without tokens. Then a single
client measures what ``fresh()`` adds to a write and to a read.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from examples.local_postgresql import missing
from sa_sqlite_pool.servers.replicas import DEFAULT_FRESHNESS_WAIT

from ..report.asked import asked_table
from ..report.output import JsonOption, console, table, write_json
from .costs import measure_costs
from .pairs import measure_pairs
from .results import Environment, PairsRun, Reads, Report, asked_of
from .servers import REPLICAS, Servers, running

DRIVERS = ("asyncpg", "psycopg")
LAGS_MS = (0, 20, 300)


def main(
    pairs: Annotated[int, typer.Option(min=20, help="At each lag, of both drivers.")] = 100_000,
    tasks: Annotated[int, typer.Option(min=1, help="Clients at once.")] = 20,
    lag: Annotated[list[int], typer.Option(min=0, help="In milliseconds; again for more.")] = list(  # noqa: B006
        LAGS_MS
    ),
    operations: Annotated[int, typer.Option(min=1, help="Timed of each kind, alone.")] = 500,
    json_file: JsonOption = None,
) -> None:
    """Count stale reads right after writes, with tokens and without, and time what tokens cost."""
    if (reason := missing()) is not None:
        console().print(f"{reason}: pip install 'sa-sqlite-pool[demo-postgresql,psycopg]'")
        raise typer.Exit(1)
    # Python's default for SIGTERM would leave the servers behind.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    with running() as servers:
        report = _measure(servers, pairs, tasks, lag, operations)
    _print(console(), report)
    write_json(report, json_file)
    if not report.is_fresh:
        raise typer.Exit(1)


def _measure(
    servers: Servers, pairs: int, tasks: int, lags: Sequence[int], operations: int
) -> Report:
    environment = Environment.of(servers.primary.sql("SHOW server_version"))
    share = pairs // len(DRIVERS)
    cases = [(lag, driver) for lag in lags for driver in DRIVERS]
    shown = track(cases, "freshness", console=Console(stderr=True))
    runs = [
        measure_pairs(servers, lag, driver, pairs=share, without=max(1, share // 10), tasks=tasks)
        for lag, driver in shown
    ]
    costs = [cost for driver in DRIVERS for cost in measure_costs(servers, driver, operations)]
    wait_ms = 1000 * DEFAULT_FRESHNESS_WAIT
    return Report(environment, tasks, wait_ms, runs, costs, asked_of(runs))


def _print(console: Console, report: Report) -> None:
    made = table(
        f"reads right after writes, {report.tasks} clients at once, {REPLICAS} replicas, which are "
        f"waited for {report.freshness_wait_ms:g} ms",
        "lag, driver",
        "pairs",
        "stale",
        "by replicas",
        "p50 ms",
        "p95 ms",
        "without tokens: pairs",
        "stale",
        "p50 ms",
        "p95 ms",
        "seconds",
    )
    for run in report.runs:
        made.add_row(*_cells(run))
    console.print(made)
    costs = table("one client alone, no lag: medians, µs", "", "without", "fresh()", "cost")
    for cost in report.costs:
        more = cost.with_us - cost.without_us
        figures = (f"{figure:,.0f}" for figure in (cost.without_us, cost.with_us, more))
        costs.add_row(f"{cost.operation}, {cost.driver}", *figures)
    console.print(costs)
    console.print(asked_table("asked of this package", report.asked))
    env = report.environment
    console.print(
        f"PostgreSQL {env.postgresql}, Python {env.python}, SQLAlchemy {env.sqlalchemy}, "
        f"asyncpg {env.asyncpg}, psycopg {env.psycopg}, {env.cpus} CPUs (load average "
        f"{env.load_average:.1f} at the start)",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _cells(run: PairsRun) -> list[str]:
    fresh, without = run.with_tokens, run.without
    return [
        f"{run.lag_ms:,} ms, {run.driver}",
        f"{fresh.count:,}",
        f"{fresh.stale:,}",
        f"{fresh.by_replicas / fresh.count:.0%}",
        *_times(fresh),
        f"{without.count:,}",
        f"{without.stale:,}",
        *_times(without),
        f"{run.seconds:.1f}",
    ]


def _times(reads: Reads) -> tuple[str, str]:
    return f"{reads.p50_ms:.1f}", f"{reads.p95_ms:.1f}"


if __name__ == "__main__":
    typer.run(main)
