"""The effect of ``temp_store`` and ``mmap_size`` on reads, with a small file and a large one.

``python -m benchmarks.pragmas``.
"""

from __future__ import annotations

from typing import Annotated

import typer

from ..report.output import console, table
from .measuring import MIB, measure


def main(
    mebibytes: Annotated[
        list[int] | None, typer.Option(min=1, help="Size of a file; more than once for several.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that are measured.")] = 3,
) -> None:
    """Measure what temp_store and mmap_size make of reads."""
    made = table(
        "reads by settings (medians)",
        "load",
        "file",
        "setting",
        "cpu ms",
        "x default",
        "wall ms",
        "memory MiB",
    )
    for file, load, setting, cost, ratio in measure(mebibytes or [16, 2048], rounds):
        made.add_row(
            load,
            file,
            setting,
            f"{cost.cpu * 1000:,.0f}",
            f"{ratio:.2f}",
            f"{cost.wall * 1000:,.0f}",
            f"{cost.memory / MIB:,.0f}",
        )
    console().print(made)


if __name__ == "__main__":
    typer.run(main)
