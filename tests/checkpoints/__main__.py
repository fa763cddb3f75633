"""The command: ``python -m tests.checkpoints --seconds 180 --processes 6 --seed 1``."""

from __future__ import annotations

import typer

from tests.commands import ProcessesOption, SecondsOption, SeedOption, carry_out

from .run import run


def main(
    seconds: SecondsOption = 20, processes: ProcessesOption = 4, seed: SeedOption = None
) -> None:
    """Let processes write and checkpoint one file, and see that nothing is lost."""
    carry_out(run, "checkpoints", seconds=seconds, processes=processes, seed=seed)


if __name__ == "__main__":
    typer.run(main)
