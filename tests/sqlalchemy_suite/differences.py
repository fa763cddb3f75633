"""The known differences: tests that pass only on the stock pool, each with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DIFFERENCES = Path(__file__).parent / "differences.txt"


@dataclass(frozen=True)
class Difference:
    """A line of ``differences.txt``."""

    test: str
    """The node id of the test, without SQLite's version; without brackets, for all parameters."""
    reason: str

    def covers(self, name: str) -> bool:
        """Return True if this line applies to the test of that name."""
        return name == self.test or name.startswith(f"{self.test}[")


def known_differences(sqlalchemy_version: str, text: str | None = None) -> list[Difference]:
    """Parse the file: reasons start at the beginning of a line, tests are indented below them.

    A test that exists, or fails, only on one release line of SQLAlchemy has a `` # 2.0 only``.
    """
    result: list[Difference] = []
    reason: list[str] = []
    ended = True
    for line in (DIFFERENCES.read_text() if text is None else text).splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if not line.startswith(" "):
            reason = [line] if ended else [*reason, line]
            ended = False
            continue
        ended = True
        test, _, only = line.strip().partition(" # ")
        if not only or sqlalchemy_version.startswith(only.split()[0]):
            result.append(Difference(test.strip(), " ".join(reason)))
    return result
