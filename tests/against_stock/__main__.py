"""``python -m tests.against_stock --count 1000``: many programs, and where they differ."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from .programs import Outcome, outcomes

_LOCKED = "database is locked"
KINDS = ("swap-in", "imports")


def difference(seed: int, kind: str) -> str | None:
    """Return where the outcome of ``seed``'s program differs from stock's; None if it does not.

    Anything after a "database is locked" from stock is not compared: stock has dropped a connection
    that still holds its lock; here, it is rolled back at once.
    """
    with tempfile.TemporaryDirectory() as directory:
        stock = outcomes("stock", seed, Path(directory) / "stock.db")
        ours = outcomes(kind, seed, Path(directory) / "ours.db")
    for number, (theirs, mine) in enumerate(zip(stock, ours, strict=True)):
        if _LOCKED in _short(theirs):
            break
        if theirs != mine:
            before = [f"  {_short(one)}" for one in stock[max(0, number - 8) : number]]
            lines = [f"program {seed} on {kind}, after", *before]
            return "\n".join([*lines, f"stock: {_short(theirs)}", f"ours:  {_short(mine)}"])
    return None


def _short(outcome: Outcome) -> str:
    return str(outcome)[:400]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="of the first program")
    arguments = parser.parse_args()
    found = 0
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        for kind in KINDS:
            if (told := difference(seed, kind)) is not None:
                found += 1
                sys.stdout.write(f"{told}\n")
                sys.stdout.flush()
    sys.stdout.write(
        f"{arguments.count} programs from seed {arguments.seed}: {found} runs differ from stock\n"
    )
    return min(found, 1)


if __name__ == "__main__":
    sys.exit(main())
