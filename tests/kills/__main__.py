"""The command: ``python -m tests.kills --seconds 60 --processes 6 --seed 1``."""

from __future__ import annotations

import typer

from tests.commands import ProcessesOption, SecondsOption, SeedOption, carry_out, fail

from .run import run


def main(
    seconds: SecondsOption = 20, processes: ProcessesOption = 6, seed: SeedOption = None
) -> None:
    """Kill processes that write one file, and see that nothing is lost and nobody is held up."""
    result = carry_out(run, "kills", seconds=seconds, processes=processes, seed=seed)
    if result.stalls:
        fail(", ".join(result.stalls))


if __name__ == "__main__":
    typer.run(main)
