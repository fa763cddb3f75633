"""The same loads on several Pythons, side by side: ``python -m benchmarks.pythons FILE.json ...``.

`make bench-pythons` measures on each installed Python, with asyncio's event loop and with uvloop,
and then runs this command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .page import pythons
from .report.reports import read


def main(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE.json ...", help="What --json wrote on each.")
    ],
    page: Annotated[
        Path | None, typer.Option(help="Write the tables there, between their markers.")
    ] = None,
) -> None:
    """Show tables of the loads that the first of them has."""
    tables = pythons.tables([read(file) for file in files])
    print(tables)
    if page is not None:
        page.write_text(pythons.write(page.read_text(), tables))


if __name__ == "__main__":
    typer.run(main)
