"""Another program: it reads with plain ``sqlite3`` and keeps its read transaction open.

``python outsider.py FILE SECONDS``.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from contextlib import closing


def main(database: str, seconds: str) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        time.sleep(float(seconds))
        connection.execute("COMMIT")


if __name__ == "__main__":
    main(*sys.argv[1:])
