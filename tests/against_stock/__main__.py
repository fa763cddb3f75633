"""``python -m tests.against_stock --count 1000``: many programs, and where they differ."""

from __future__ import annotations

import argparse
import sys

from .comparing import FAMILIES, KINDS, difference


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300, help="of programs of each family")
    parser.add_argument("--seed", type=int, default=0, help="of the first program")
    parser.add_argument("--family", choices=FAMILIES, action="append", help="default: all")
    arguments = parser.parse_args()
    families = arguments.family or FAMILIES
    found = 0
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        for family in families:
            for kind in KINDS:
                if (told := difference(seed, kind, family)) is not None:
                    found += 1
                    sys.stdout.write(f"{told}\n")
                    sys.stdout.flush()
    sys.stdout.write(
        f"{arguments.count} programs of {', '.join(families)} from seed {arguments.seed}: "
        f"{found} runs differ from stock\n"
    )
    return min(found, 1)


if __name__ == "__main__":
    sys.exit(main())
