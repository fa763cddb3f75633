"""A random program, run on a stock engine and on one of ours, and where their outcomes differ."""

from __future__ import annotations

import asyncio
import gc
import random
import sqlite3
import tempfile
import warnings
from contextlib import closing
from pathlib import Path

from . import interleaved, programs, wide_programs
from .programs import Outcome

KINDS = ("swap-in", "imports")
FAMILIES = {
    "plain": programs.run,
    "wide": wide_programs.run,
    "interleaved": interleaved.run,
}
_SECONDS = 60.0  # the time limit of a program, which waits for its own tasks only

# Nothing is compared from one of stock's errors on:
# - "database is locked": stock has dropped a connection that still holds its lock, or a task did
#   not wait; here, the connection is rolled back at once, and the task waits in line;
# - MissingGreenlet, which stock may wrap into a StatementError.
_ENDS_WITH = ("database is locked", "'locked'", "MissingGreenlet")


def difference(seed: int, kind: str, family: str = "plain") -> str | None:
    """Return where the outcome of ``seed``'s program differs from stock's; None if it does not."""
    with tempfile.TemporaryDirectory() as directory:
        stock = _outcomes("stock", seed, family, Path(directory) / "stock.db")
        ours = _outcomes(kind, seed, family, Path(directory) / "ours.db")
    for number, (theirs, mine) in enumerate(zip(stock, ours, strict=False)):
        ends = "holder remains" not in theirs and any(one in str(theirs) for one in _ENDS_WITH)
        if theirs != mine and not ends:
            before = [f"  {_short(one)}" for one in stock[max(0, number - 8) : number]]
            lines = [f"program {seed} ({family}) on {kind}, after", *before]
            return "\n".join([*lines, f"stock: {_short(theirs)}", f"ours:  {_short(mine)}"])
        if ends:
            break
    return None


def _outcomes(kind: str, seed: int, family: str, path: Path) -> list[Outcome]:
    """Run the program of ``seed`` on ``path``; return its results, errors and the final content."""

    async def in_time() -> list[Outcome]:
        program = FAMILIES[family](kind, random.Random(seed), path)
        return await asyncio.wait_for(program, _SECONDS)

    # The identity map of a session is weak: its content must not depend on the collector's moment.
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # stock's detached connections
            warnings.filterwarnings("ignore", ".*never awaited")  # stock's, after MissingGreenlet
            found = asyncio.run(in_time())
            gc.collect()
    finally:
        gc.enable()
    with closing(sqlite3.connect(path)) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()
        found.append(("the file", list(connection.iterdump()), version))
    return found


def _short(outcome: Outcome) -> str:
    return str(outcome)[:400]
