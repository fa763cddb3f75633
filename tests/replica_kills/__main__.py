"""The command: ``python -m tests.replica_kills --count 1000 --seed 1``."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from examples.local_postgresql import missing
from tests.commands import SeedOption, fail, seed_or_time, show
from tests.postgresql import Cluster, start_cluster

from .run import run

DATABASE = "replica_kills"

CountOption = Annotated[int, typer.Option(min=1, help="How many connections are killed.")]


def main(count: CountOption = 1000, seed: SeedOption = None) -> None:
    """Kill readers of sessions, and see that no write fails and no outcome is wrong."""
    if (reason := missing()) is not None:
        fail(reason)
    seed = seed_or_time(seed)
    typer.echo(f"seed {seed}")
    directory = Path(tempfile.mkdtemp(prefix="replica-kills-"))
    directory.chmod(0o755)  # the servers may run as another user
    cluster: Cluster | None = None
    try:
        cluster = start_cluster(directory, replicas=1)
        cluster.primary.sql(f"CREATE DATABASE {DATABASE}")
        with typer.progressbar(length=count, file=sys.stderr) as bar:
            result = run(cluster, DATABASE, count=count, seed=seed, on_progress=bar.update)
    except AssertionError as error:
        fail(str(error))
    finally:
        for server in reversed(cluster.servers if cluster else ()):
            server.kill()
        shutil.rmtree(directory, ignore_errors=True)
    show(result)
    if result.wrong:
        fail(f"{result.wrong} sessions were told something else than the primary has")


if __name__ == "__main__":
    typer.run(main)
