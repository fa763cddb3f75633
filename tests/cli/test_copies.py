"""``sa-sqlite-pool checkpoint``, ``backup`` and ``restore``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.commanding import answer, run
from tests.doctor.patients import SCHEMA, execute, healthy, ids, killed
from tests.helpers import files_beside
from tests.wal.others import OtherProcess

INSERT = "INSERT INTO parents VALUES (3, 'c')"


# -- checkpoint ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["passive", "full", "restart", "truncate"])
def test_checkpoint(path: Path, mode: str) -> None:
    """It runs alongside another process; the log's size before and after is reported."""
    healthy(path)
    with OtherProcess(path) as other:
        assert other.execute(INSERT) == "[]"
        before = os.path.getsize(f"{path}-wal")
        found = answer(path.parent, "checkpoint", "app.db", "--mode", mode)
        assert (found["mode"], found["held_back_by"]) == (mode, None)
        assert found["outcome"] == ("truncated" if mode == "truncate" else "moved_all")
        assert found["log_bytes_before"] == before
        assert found["log_bytes_after"] <= before
        assert other.execute("SELECT count(*) FROM parents") == "[(3,)]"


def test_a_reader_in_the_way(path: Path) -> None:
    """The reader is named in both output formats, and the exit code is 1."""
    healthy(path)
    with OtherProcess(path) as reader, OtherProcess(path) as writer:
        assert reader.execute("BEGIN") == "[]"
        assert reader.execute("SELECT count(*) FROM parents") == "[(2,)]"
        assert writer.execute(INSERT) == "[]"
        found = answer(path.parent, "checkpoint", "app.db", "--mode", "full", code=1)
        assert (found["outcome"], found["held_back_by"]) == ("held_back", reader.name)
        done = run(path.parent, "checkpoint", "app.db", "--mode", "full")
        assert done.returncode == 1
        assert "app.db: held back: a reader of an old state is in the way\n" in done.stdout
        assert f"in the way: {reader.name}\n" in done.stdout


def test_a_database_without_a_log(path: Path) -> None:
    """Its journal mode is not switched to WAL."""
    execute(path, *SCHEMA)
    found = answer(path.parent, "checkpoint", "app.db")
    assert (found["outcome"], found["log_bytes_after"]) == ("not_wal", 0)
    assert ids(path) == ["journal-mode"]


def test_an_empty_file(path: Path) -> None:
    """An empty file is a database without tables, and stays empty."""
    path.touch()
    assert answer(path.parent, "checkpoint", "app.db")["outcome"] == "not_wal"
    answer(path.parent, "backup", "app.db", "copy.db")
    assert path.stat().st_size == 0


# -- backup and restore ----------------------------------------------------------------------------


@pytest.mark.parametrize("journal_mode", ["WAL", "DELETE"])
def test_there_and_back(path: Path, journal_mode: str) -> None:
    """The copy is made while another process has the file open; journal modes are kept."""
    execute(path, f"PRAGMA journal_mode = {journal_mode}", *SCHEMA)
    with OtherProcess(path) as other:
        assert other.execute(INSERT) == "[]"
        found = answer(path.parent, "backup", "app.db", "copy.db")
    copy = path.with_name("copy.db")
    assert (found["path"], found["target"]) == ("app.db", "copy.db")
    assert found["bytes"] == copy.stat().st_size
    killed(path, "DELETE FROM children", "DELETE FROM parents")
    found = answer(path.parent, "restore", "copy.db", "app.db")
    assert (found["backup"], found["path"]) == ("copy.db", "app.db")
    assert found["bytes"] == path.stat().st_size
    with OtherProcess(path) as other:
        assert other.execute("SELECT count(*) FROM parents") == "[(3,)]"


def test_what_they_print(path: Path) -> None:
    healthy(path)
    done = run(path.parent, "backup", "app.db", "copy.db")
    assert (done.stdout, done.stderr) == ("copy.db: 16 KiB, verified\n", "")
    done = run(path.parent, "restore", "copy.db", "new.db")
    assert (done.stdout, done.stderr) == ("new.db: 16 KiB, from copy.db\n", "")
    assert files_beside(path) == {"app.db", "copy.db", "new.db"}


def test_a_database_in_use_is_not_replaced(path: Path) -> None:
    """The message names the process that has the file open."""
    healthy(path)
    assert run(path.parent, "backup", "app.db", "copy.db").returncode == 0
    with OtherProcess(path) as other:
        assert other.execute(INSERT) == "[]"
        done = run(path.parent, "restore", "copy.db", "app.db")
        assert (done.returncode, done.stdout) == (3, "")
        assert f"is in use by {other.name}; close it there" in done.stderr
        assert done.stderr.count("\n") == 1
