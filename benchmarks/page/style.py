"""The common style of all pictures."""

from __future__ import annotations

from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..report.results import LoadResult
from ..report.tables import journal

OURS, STOCK, SYNCHRONOUS, OTHERS = "#0072B2", "#D55E00", "#4D4D4D", "#B5B5B5"
"""Colours of the palette of Okabe and Ito, which people with colour blindness can distinguish."""

KINDS = {
    "this package": OURS,
    "SQLAlchemy, asyncio": STOCK,
    "SQLAlchemy, synchronous": SYNCHRONOUS,
    "drivers without SQLAlchemy": OTHERS,
}

LOOKS = {
    "stock": ("#D55E00", "s"),
    "stock, NullPool": ("#E69F00", "s"),
    "ReaderPool": ("#0072B2", "o"),
    "WriterPool": ("#0072B2", "o"),
    "SQLitePool": ("#009E73", "^"),
    "SQLiteDatabase, Core": ("#882255", "o"),
    "run_read": ("#CC79A7", "D"),
    "run_write": ("#CC79A7", "D"),
    "asyncio.to_thread": ("#4D4D4D", "d"),
    "aiosqlite": ("#000000", "v"),
    "aiosqlite, connect each": ("#56B4E9", "v"),
    "aiosqlitepool": ("#000000", "P"),
}
"""The colour and the marker of a contender's line, the same in all pictures.

Synchronous SQLAlchemy has none: a single thread has no number of tasks to plot over.
"""

_DOTS_AN_INCH = 110


def color(contender: str) -> str:
    """Return the colour of the kind of contender; the names of stock also contain its settings."""
    if contender.startswith("stock"):
        return STOCK
    if contender.startswith(("synchronous", "asyncio.to_thread")):
        return SYNCHRONOUS
    return OTHERS if contender.startswith(("aiosqlite", "apsw")) else OURS


def settings_of(load: LoadResult) -> str:
    """Return the journal mode and ``synchronous``, for the title of a picture."""
    return journal(load.summaries[0])


def tidy(axes: Axes, grid: str) -> None:
    """Remove lines that do not help the reader."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis="x" if grid == "x" else "y", color="#DDDDDD", linewidth=0.7)


def save(figure: Figure, directory: Path, name: str) -> None:
    """Save the figure as PNG and as SVG, with the same bytes each time."""
    # Otherwise, an SVG contains random ids and the date, and each run changes the repository.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the layout is computed once, not for each format
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(directory / f"{name}.svg", metadata={"Date": None})
    figure.savefig(directory / f"{name}.png", dpi=_DOTS_AN_INCH)
