"""``sa-sqlite-pool bench``: a read that the user specifies."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commanding import answer, run
from tests.doctor.patients import SCHEMA, WAL, execute, healthy
from tests.helpers import files_beside

QUICK = ("--seconds", "0.02", "--tasks", "2")
NAMES = ["stock", "reader_engine", "run_read_core", "synchronous"]


@pytest.mark.parametrize("journal_mode", [WAL, "PRAGMA journal_mode = DELETE"])
def test_bench(path: Path, journal_mode: str) -> None:
    """All contenders read the same rows, and the files are left unchanged."""
    execute(path, journal_mode, *SCHEMA)
    content = path.read_bytes()
    statement = "SELECT name, '12:30 :x %d' FROM parents"
    found = answer(path.parent, "bench", "app.db", statement, *QUICK)
    assert [one["name"] for one in found["contenders"]] == NAMES
    assert all(one["per_second"] > 0 < one["process_us"] for one in found["contenders"])
    assert (found["statement"], found["rows"], found["rounds"]) == (statement, 2, 3)
    assert (found["seconds"], found["tasks"]) == (0.02, 2)
    assert path.read_bytes() == content
    assert files_beside(path) == {"app.db"}


def test_the_table(path: Path) -> None:
    healthy(path)
    done = run(path.parent, "bench", "app.db", "SELECT * FROM parents", *QUICK)
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("2 rows each time", "reads/s", *NAMES):
        assert word in done.stdout


@pytest.mark.parametrize("place", ["?", ":id"])
def test_parameters(path: Path, place: str) -> None:
    """Parameters are refused, and the message suggests what to do."""
    healthy(path)
    done = run(path.parent, "bench", "app.db", f"SELECT * FROM parents WHERE id = {place}", *QUICK)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        "sa-sqlite-pool: bench passes no parameters: write values in their places in the "
        "statement\n"
    )


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM children",
        "WITH n AS (SELECT 1) INSERT INTO parents (name) SELECT 'x' FROM n",
        "DROP TABLE children",
        "VACUUM INTO 'copy.db'",
        "PRAGMA user_version = 9",
        "ATTACH 'other.db' AS other",
    ],
)
def test_what_writes_is_refused(path: Path, statement: str) -> None:
    """Such a statement is refused before any measurement, and no file is created."""
    healthy(path)
    content = path.read_bytes()
    done = run(path.parent, "bench", "app.db", statement, *QUICK)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1
    assert path.read_bytes() == content
    assert files_beside(path) == {"app.db"}


def test_what_is_no_statement(path: Path) -> None:
    """The message is SQLite's own."""
    healthy(path)
    done = run(path.parent, "bench", "app.db", "SELECT nowhere", *QUICK)
    assert (done.returncode, done.stderr) == (3, "sa-sqlite-pool: no such column: nowhere\n")


@pytest.mark.parametrize("statement", ["", "BEGIN", "PRAGMA query_only = 0", "SELECT \udcff"])
def test_what_gives_no_rows(path: Path, statement: str) -> None:
    """Nothing is measured; the last statement is an argument that is not valid UTF-8."""
    healthy(path)
    done = run(path.parent, "bench", "app.db", statement, *QUICK)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        "sa-sqlite-pool: bench measures a read, such as a SELECT, and this is none: "
        f"{statement!r}\n"
    )
