"""The document that a process sends in response: JSON, on one line.

::

    {"version": 1, "pid": 4242, "process": "uvicorn", "since": "2026-01-31T09:30:00+00:00",
     "error": null, "statistics": {"name": "app.db", …}}

``since`` is the time at which the database was opened. ``statistics`` is the result of
``db.statistics().as_dict()``, or null if ``error`` says why there are none. Keys may be added;
``version`` changes if the meaning of a key changes, or a key is removed.
"""

from __future__ import annotations

import json
import os
from datetime import datetime
from typing import Any

from ..system.proc_locks import program_of

VERSION = 1
MOST_BYTES = 1024 * 1024


def encode(since: datetime, statistics: dict[str, Any] | None, error: str | None = None) -> bytes:
    """Return the encoded document of this process, which is never longer than ``MOST_BYTES``."""
    found = {
        "version": VERSION,
        "pid": os.getpid(),
        "process": program_of(os.getpid()),
        "since": since.isoformat(timespec="seconds"),
        "error": error,
        "statistics": statistics,
    }
    encoded = json.dumps(found, default=str).encode("ascii") + b"\n"
    if len(encoded) <= MOST_BYTES:
        return encoded
    return encode(since, None, f"the statistics are too large: {len(encoded)} bytes")


def decode(received: bytes) -> dict[str, Any]:
    """Return the decoded document; raise ``ValueError`` if it is invalid or of another version."""
    found = json.loads(received)
    if not isinstance(found, dict) or not isinstance(found.get("version"), int):
        raise ValueError("not a statistics document")
    if found["version"] != VERSION:
        raise ValueError(f"version {found['version']} of another release of sa_sqlite_pool")
    return found
