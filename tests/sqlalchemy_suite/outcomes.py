"""The records of the processes of a run."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

_DATABASE = re.compile(r"_sqlite\+aiosqlite_async(_\d+)+(?=::|$)")
"""The suffix that SQLAlchemy's plugin adds to the name of a class: driver and version."""


@dataclass
class Outcomes:
    """Outcomes of one pool's run."""

    passed: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    """Failed tests with the failure text, including tests that hung or ended their process."""
    ended_early: set[str] = field(default_factory=set)
    """The failed tests that hung or ended their process."""
    pools: set[str] = field(default_factory=set)
    """Class names of the pools that engines used if a test names none."""

    def update(self, other: Outcomes) -> None:
        """Add the outcomes of another process."""
        self.passed |= other.passed
        self.skipped |= other.skipped
        self.failed |= other.failed
        self.ended_early |= other.ended_early
        self.pools |= other.pools

    def of_files(self, names: set[str]) -> Outcomes:
        """Return the outcomes of these files' tests."""

        def is_there(test: str) -> bool:
            return test.partition("::")[0] in names

        return Outcomes(
            set(filter(is_there, self.passed)),
            set(filter(is_there, self.skipped)),
            {test: text for test, text in self.failed.items() if is_there(test)},
            set(filter(is_there, self.ended_early)),
            self.pools,
        )


@dataclass
class Records:
    """The records of one batch, by one process or by several that continued one another."""

    outcomes: Outcomes
    unfinished: str | None
    """The test that was running when the last process ended."""
    is_finished: bool
    """True if all tests of the batch have ended."""


def read(path: Path) -> Records:
    """Read a file that `plugin.py` wrote. A test has passed if nothing else was recorded for it."""
    outcomes = Outcomes()
    running: str | None = None
    finished = False
    for line in path.read_text().splitlines() if path.exists() else ():
        kind, *values = json.loads(line)
        if kind == "finished":
            finished = True
            continue
        if kind == "pool":
            outcomes.pools.add(values[0])
            continue
        name = short(values[0])
        if kind == "start":
            running = name
        elif kind == "end":
            running = None
        elif kind == "failed":
            outcomes.failed[name] = outcomes.failed.get(name, "") + values[1]
        elif kind in {"passed", "skipped"}:
            getattr(outcomes, kind).add(name)
    outcomes.passed -= outcomes.failed.keys()
    return Records(outcomes, running, finished)


def short(node_id: str) -> str:
    """Return the name of a test without the version of SQLite."""
    return _DATABASE.sub("", node_id)
