"""``sa-sqlite-pool doctor``: its output and its exit codes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sa_sqlite_pool.doctor import examine
from tests.commanding import ROOT, answer, run
from tests.doctor.patients import execute, healthy, killed
from tests.wal.others import OtherProcess


def test_a_healthy_database(path: Path) -> None:
    """Exit code 0, one line and the figures; no file is left beside the database."""
    healthy(path)
    done = run(path.parent, "doctor", "app.db")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("app.db: nothing to mend\n\njournal_mode wal, 4 pages of 4096")
    assert [entry.name for entry in path.parent.iterdir()] == ["app.db"]


@pytest.mark.parametrize(
    ("statement", "code", "worst"),
    [
        ("DROP INDEX ix_children_parent_id", 0, "info"),
        ("PRAGMA journal_mode = DELETE", 1, "warning"),
        ("INSERT INTO children VALUES (9, 9)", 2, "error"),
    ],
)
def test_exit_codes(path: Path, statement: str, code: int, worst: str) -> None:
    """The exit code is that of the worst finding; a note does not count."""
    healthy(path)
    execute(path, statement)
    found = answer(path.parent, "doctor", "app.db", code=code)
    assert found["worst"] == worst
    assert run(path.parent, "doctor", "app.db").returncode == code


def test_what_is_printed(path: Path) -> None:
    """Each finding has its name, its sentence, and a command that can be copied as a whole."""
    path = path.with_name("a name with spaces, and so long that its command does not fit.db")
    healthy(path)
    execute(path, "PRAGMA journal_mode = DELETE")
    lines = run(path.parent, "doctor", path.name).stdout.splitlines()
    assert lines[0] == f"{path.name}: 1 warning"
    assert lines[2] == "warning journal-mode"
    assert lines[3].startswith("  journal_mode is delete: ")
    assert f"  mend: sqlite3 '{path.name}' 'PRAGMA journal_mode = WAL'" in lines


def test_json(path: Path) -> None:
    """The shape is the documented one, and the content equals the report in Python."""
    healthy(path)
    execute(path, "PRAGMA journal_mode = DELETE")
    with OtherProcess(path) as other:
        assert other.execute("BEGIN IMMEDIATE") == "[]"
        found = answer(path.parent, "doctor", str(path), code=1)
        report = examine(path)
    assert [*found] == [
        *("path", "worst", "findings", "journal_mode", "page_size", "pages", "free_pages"),
        *("log_bytes", "checked", "locks", "sqlite_version"),
    ]
    assert found["findings"] == [
        {
            "id": finding.id,
            "severity": finding.severity.value,
            "message": finding.message,
            "mend": finding.mend,
        }
        for finding in report.findings
    ]
    assert found["locks"] == [
        {"pid": lock.pid, "program": lock.program, "lock": lock.lock} for lock in report.locks
    ]
    assert (found["path"], found["journal_mode"], found["pages"]) == (str(path), "delete", 4)
    assert found["checked"] == "integrity_check"


def test_json_of_what_could_not_be_read(path: Path) -> None:
    """Figures that could not be determined are null."""
    healthy(path)
    killed(path, "INSERT INTO parents VALUES (3, 'c')")
    Path(f"{path}-shm").unlink()
    found = answer(path.parent, "doctor", "app.db", "--quick", code=1)
    assert [finding["id"] for finding in found["findings"]] == ["log-without-index"]
    assert (found["checked"], found["pages"], found["log_bytes"] > 0) == (None, None, True)


def test_quick(path: Path) -> None:
    healthy(path)
    assert answer(path.parent, "doctor", "app.db", "--quick")["checked"] == "quick_check"


ENDLESS = """
import sys
from sa_sqlite_pool.cli.app import run
from sa_sqlite_pool.doctor import contents

def messages(connection, pragma):
    print("checking", flush=True)
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    ).fetchall()

contents._messages = messages
run()
"""


def test_interrupted(path: Path) -> None:
    """Ctrl-C interrupts SQLite, too: one line is printed, and the exit code is 130."""
    healthy(path)
    child = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, "doctor", str(path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "checking\n"
    child.send_signal(signal.SIGINT)
    output, errors = child.communicate(timeout=60)
    assert (child.returncode, output, errors) == (130, "", "sa-sqlite-pool: interrupted\n")


def test_a_terminal_obeys_no_name(path: Path) -> None:
    """Control characters in names are printed escaped; a new line stays a new line."""
    healthy(path)
    name = "x\x1b]0;y\x07\x9b31m\nz"
    execute(path, f'CREATE TABLE "{name}" (id INTEGER REFERENCES parents (id))')
    done = run(path.parent, "doctor", "app.db")
    assert r"x\x1b]0;y\x07\x9b31m" in done.stdout
    assert not set(done.stdout) & {"\x1b", "\x07", "\x9b"}
