"""The name by which servers know the connections of this program."""

from __future__ import annotations

import sys
from pathlib import PurePath

# "A string of less than NAMEDATALEN characters (64 characters in a standard build). … Only
# printable ASCII characters": https://www.postgresql.org/docs/current/runtime-config-logging.html
_MOST_CHARACTERS = 63


def application_name() -> str:
    """Return ``sa_sqlite_pool worker.py``: the package and the program that runs."""
    started = PurePath(sys.argv[0] if sys.argv else "")
    name = started.parent.name if started.name == "__main__.py" else started.name
    if name in {"", "-c", "-m"}:
        name = "python"
    printable = name.encode("ascii", "replace").decode()
    return f"sa_sqlite_pool {printable}"[:_MOST_CHARACTERS]
