"""A process's record of its transactions, written line by line, so a kill loses none of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from tests.cancellations.oracle import Fate


@dataclass(frozen=True)
class Entry:
    """One transaction: its token is in ``parts`` rows, and it added one to ``counter``."""

    token: str
    parts: int
    counter: int
    fate: Fate

    @property
    def line(self) -> str:
        return f"{self.fate.name} {self.token} {self.parts} {self.counter}\n"

    @classmethod
    def parse(cls, line: str) -> Entry:
        fate, token, parts, counter = line.split()
        return cls(token, int(parts), int(counter), Fate[fate])


class Journal:
    """The journal of one process. Its tokens start with the name of the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._count = 0
        self._file = path.open("w", buffering=1)  # each line is flushed at once

    def begin(self, parts: int, counter: int) -> Entry:
        """Record a transaction that may or may not be committed."""
        return self._note(parts, counter, Fate.UNKNOWN)

    def begin_doomed(self, parts: int, counter: int) -> Entry:
        """Record a transaction that will not be committed in any case."""
        return self._note(parts, counter, Fate.ROLLED_BACK)

    def _note(self, parts: int, counter: int, fate: Fate) -> Entry:
        self._count += 1
        entry = Entry(f"{self.path.stem}-{self._count}", parts, counter, fate)
        self._file.write(entry.line)
        return entry

    def acknowledge(self, entry: Entry) -> None:
        """Record that the commit has returned."""
        assert entry.fate is Fate.UNKNOWN
        self._file.write(replace(entry, fate=Fate.ACKNOWLEDGED).line)

    def close(self) -> None:
        self._file.close()


def read_journals(paths: Iterable[Path]) -> list[Entry]:
    """Return all transactions, each with its last recorded state."""
    entries: dict[str, Entry] = {}
    for path in paths:
        # Text after the last line break was being written when the process was killed.
        for line in path.read_text().split("\n")[:-1]:
            entry = Entry.parse(line)
            entries[entry.token] = entry
    return list(entries.values())
