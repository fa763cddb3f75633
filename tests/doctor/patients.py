"""Databases for the doctor: their creation, and the findings."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from sa_sqlite_pool.doctor import Finding, Severity, examine
from tests.children import Child
from tests.commanding import shell

on_linux = pytest.mark.skipif(
    not Path("/proc/locks").exists(), reason="the system does not tell who has locks"
)

SCHEMA = (
    "CREATE TABLE parents (id INTEGER PRIMARY KEY, name TEXT)",
    "CREATE TABLE children (id INTEGER PRIMARY KEY, parent_id REFERENCES parents (id))",
    "CREATE INDEX ix_children_parent_id ON children (parent_id)",
    "INSERT INTO parents VALUES (1, 'a'), (2, 'b')",
    "INSERT INTO children VALUES (1, 1), (2, 2), (3, NULL)",
)
WAL = "PRAGMA journal_mode = WAL"


def numbers(count: int) -> str:
    """Return a common table expression ``n(i)`` with the numbers 1 … count."""
    return f"WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement).fetchall()


def healthy(path: Path) -> None:
    execute(path, WAL, *SCHEMA)


def killed(path: Path, *statements: str) -> None:
    """Execute the statements in a process that is killed before it can clean up."""
    program = (
        "import os, signal, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "for statement in sys.argv[2:]:\n"
        "    connection.execute(statement).fetchall()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path), *statements], timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL


def ids(path: Path) -> list[str]:
    return [finding.id for finding in examine(path).findings]


def found(path: Path, wanted: str, severity: Severity) -> Finding:
    """Return the only finding of that name, which must include a remedy."""
    (finding,) = (each for each in examine(path).findings if each.id == wanted)
    assert finding.severity is severity
    assert finding.message
    assert finding.mend
    return finding


def mended(path: Path, finding: Finding, *, left: Iterable[str] = ()) -> None:
    """Run the finding's remedy, and check that the finding is gone."""
    shell(finding.mend, path.parent)
    assert ids(path) == list(left)


def as_nobody(path: Path) -> list[str]:
    """Return the identifiers and messages of another user's findings; root drops privileges."""
    with Child(_as_nobody, path) as child:
        found: list[str] = child.hear()
    return found


def _as_nobody(pipe: Connection, path: Path) -> None:
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    findings = examine(path).findings
    pipe.send([f"{finding.id} {finding.message} {finding.mend}" for finding in findings])
