"""A process's record of its requests, turns and ends, in a form of which a kill loses nothing."""

from __future__ import annotations

import enum
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.cancellations.oracle import Fate
from tests.checkpoints.journal import Entry


class Stage(enum.Enum):
    """The progress of a transaction."""

    ASKS = "in line"
    HOLDS = "has written"
    OVER = "over"


class Diary:
    """The diary of one process. Its tokens start with the name of the process.

    Times are ``time.monotonic()``, which all processes of a machine share.
    """

    def __init__(self, path: Path) -> None:
        self._name = path.stem
        self._count = 0
        self._file = path.open("w", buffering=1)  # each line is flushed at once

    def asks(self, parts: int, counter: int) -> Entry:
        """Record the request of a transaction that may or may not be committed."""
        return self._begin(parts, counter, Fate.UNKNOWN)

    def asks_doomed(self, parts: int, counter: int) -> Entry:
        """Record the request of a transaction that will not be committed in any case."""
        return self._begin(parts, counter, Fate.ROLLED_BACK)

    def _begin(self, parts: int, counter: int, fate: Fate) -> Entry:
        self._count += 1
        entry = Entry(f"{self._name}-{self._count}", parts, counter, fate)
        self._write(Stage.ASKS, entry)
        return entry

    def holds(self, entry: Entry) -> None:
        """Record that its first statement has returned."""
        self._write(Stage.HOLDS, entry)

    def acknowledge(self, entry: Entry) -> None:
        """Record that the commit has returned."""
        assert entry.fate is Fate.UNKNOWN
        self._write(Stage.OVER, replace(entry, fate=Fate.ACKNOWLEDGED))

    def over(self, entry: Entry) -> None:
        """Record that it has ended in some other way."""
        self._write(Stage.OVER, entry)

    def _write(self, stage: Stage, entry: Entry) -> None:
        self._file.write(f"{time.monotonic():.6f} {stage.name} {entry.line}")

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class Story:
    """One transaction; times are None if it did not get that far."""

    entry: Entry
    asked: float
    held: float | None = None
    over: float | None = None

    @property
    def committed(self) -> bool:
        return self.entry.fate is Fate.ACKNOWLEDGED


def read_diary(path: Path) -> list[Story]:
    """Return all transactions of a process, each with its last recorded state."""
    stories: dict[str, Story] = {}
    for at, stage, entry in _lines(path):
        if stage is Stage.ASKS:
            stories[entry.token] = Story(entry, at)
        elif stage is Stage.HOLDS:
            stories[entry.token] = replace(stories[entry.token], held=at)
        else:
            stories[entry.token] = replace(stories[entry.token], entry=entry, over=at)
    return list(stories.values())


def _lines(path: Path) -> Iterator[tuple[float, Stage, Entry]]:
    # Text after the last line break was being written when the process was killed.
    for line in path.read_text().split("\n")[:-1]:
        at, stage, entry = line.split(" ", 2)
        yield float(at), Stage[stage], Entry.parse(entry)
