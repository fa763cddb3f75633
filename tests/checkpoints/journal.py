"""What a process knows of its transactions, line by line, so that a kill takes none of it away."""

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
    """The book of one process. Its tokens begin with the name of the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._count = 0
        self._file = path.open("w", buffering=1)  # each line is written out at once

    def begin(self, parts: int, counter: int) -> Entry:
        """A transaction of which nobody knows yet whether it will be committed."""
        return self._note(parts, counter, Fate.UNKNOWN)

    def begin_doomed(self, parts: int, counter: int) -> Entry:
        """A transaction that will never be committed, whatever happens."""
        return self._note(parts, counter, Fate.ROLLED_BACK)

    def _note(self, parts: int, counter: int, fate: Fate) -> Entry:
        self._count += 1
        entry = Entry(f"{self.path.stem}-{self._count}", parts, counter, fate)
        self._file.write(entry.line)
        return entry

    def acknowledge(self, entry: Entry) -> None:
        """The commit has returned."""
        assert entry.fate is Fate.UNKNOWN
        self._file.write(replace(entry, fate=Fate.ACKNOWLEDGED).line)

    def close(self) -> None:
        self._file.close()


def read_journals(paths: Iterable[Path]) -> list[Entry]:
    """Every transaction, as it was last heard of."""
    entries: dict[str, Entry] = {}
    for path in paths:
        # What comes after the last line break was being written when the process was killed.
        for line in path.read_text().split("\n")[:-1]:
            entry = Entry.parse(line)
            entries[entry.token] = entry
    return list(entries.values())
