"""A process that does not use this package: plain ``sqlite3``, which waits for no lock.

``python -m tests.checkpoints.outsider DATABASE`` executes the statements it receives, line by line.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any

_ROOT = Path(__file__).parent.parent.parent


class Outsider:
    """The process, and its one connection."""

    def __init__(self, database: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.checkpoints.outsider", str(database)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=_ROOT,
        )

    def __enter__(self) -> Outsider:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate(timeout=30)

    def execute(self, sql: str, parameters: Any = ()) -> list[list[Any]]:
        """Return the rows. Raise ``sqlite3.OperationalError`` at once if a lock is taken."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([sql, parameters]) + "\n")
        answer = json.loads(self._process.stdout.readline())
        if isinstance(answer, str):
            raise sqlite3.OperationalError(answer)
        rows: list[list[Any]] = answer
        return rows


def _serve(database: str) -> None:
    with closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as connection:
        for line in sys.stdin:
            answer = json.dumps(_answer(connection, *json.loads(line)))
            print(answer, flush=True)  # noqa: T201 - what the parent reads


def _answer(connection: sqlite3.Connection, sql: str, parameters: Any) -> Any:
    try:
        return connection.execute(sql, parameters).fetchall()
    except sqlite3.OperationalError as error:
        return str(error)


if __name__ == "__main__":
    _serve(sys.argv[1])
