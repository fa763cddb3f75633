"""Other processes that use a database, through plain ``sqlite3`` or this package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parent.parent.parent

PLAIN = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None)
print("ready", flush=True)
for line in sys.stdin:
    try:
        print(connection.execute(line).fetchall(), flush=True)
    except sqlite3.Error as error:
        print(error, flush=True)
"""

# Marks its presence as the package does, and is otherwise plain.
PRESENT = """
import os, sys
from sa_sqlite_pool.files.neighbours import Presence
log = sys.argv[1] + "-wal"
presence = Presence(log)
presence.show(os.stat(log).st_ino)
"""

# Writes through the package, one transaction per line.
PACKAGE = """
import asyncio, sys
from sqlalchemy import text
from sa_sqlite_pool import SQLiteDatabase

async def main():
    async with SQLiteDatabase(sys.argv[1], file_turn=False) as db:
        print("ready", flush=True)
        for line in sys.stdin:
            async with db.write() as session:
                await session.execute(text(line))
                print("in transaction", flush=True)
                sys.stdin.readline()
            print("committed", flush=True)

asyncio.run(main())
"""


class OtherProcess:
    """``with OtherProcess(path) as other:`` a process that runs SQL line by line."""

    def __init__(self, path: Path, program: str = PLAIN, *, present: bool = False) -> None:
        self._program = PRESENT + program if present else program
        self._path = path

    def __enter__(self) -> OtherProcess:
        self._process = subprocess.Popen(
            [sys.executable, "-c", self._program, str(self._path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self._answer() == "ready"
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    @property
    def name(self) -> str:
        """Its name in warnings."""
        comm = Path(f"/proc/{self._process.pid}/comm").read_text().strip()
        return f"process {self._process.pid} ({comm})"

    def execute(self, line: str) -> str:
        """Let the process execute the line, and wait for the response."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        """Kill it at once, as the system does; the next process rolls back its transaction."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.kill()
            self._process.communicate()
