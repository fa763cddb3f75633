"""The journal mode, the log, and what remains of both."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sa_sqlite_pool.doctor import Severity, examine, examining, log
from tests.commanding import shell
from tests.doctor.patients import (
    SCHEMA,
    WAL,
    execute,
    found,
    healthy,
    ids,
    killed,
    mended,
    numbers,
    on_linux,
)
from tests.wal.others import OtherProcess

MUCH = f"{numbers(700)} INSERT INTO parents (name) SELECT randomblob(3000) FROM n"


@pytest.fixture
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a log of more than a mebibyte count as large."""
    monkeypatch.setattr(log, "LIMIT", 1024 * 1024)


@pytest.mark.parametrize("mode", ["DELETE", "TRUNCATE", "PERSIST"])
def test_journal_mode(path: Path, mode: str) -> None:
    execute(path, f"PRAGMA journal_mode = {mode}", *SCHEMA)
    finding = found(path, "journal-mode", Severity.WARNING)
    assert finding.message.startswith("journal_mode is delete: ")  # others are the connection's
    mended(path, finding)


@on_linux
def test_a_log_that_a_reader_pins(path: Path, low_limit: None) -> None:
    """The process that reads is named; once it has ended, the command truncates the log."""
    healthy(path)
    with OtherProcess(path) as reader, OtherProcess(path) as writer:
        assert reader.execute("BEGIN") == "[]"
        assert reader.execute("SELECT count(*) FROM parents") == "[(2,)]"
        assert writer.execute(MUCH) == "[]"
        finding = found(path, "log-pinned", Severity.WARNING)
        assert reader.name in finding.message
        assert writer.name not in finding.message
        assert "log-large" not in ids(path)
        end, _, command = finding.mend.partition("; then: ")
        assert end == f"end that transaction, or {reader.name}"
        assert "in the way: " in shell(command, path.parent)
        reader.end()
        shell(command, path.parent)
        assert ids(path) == []


def test_a_large_log(path: Path, low_limit: None) -> None:
    """No reader is in the way, but no checkpoint has run."""
    healthy(path)
    killed(path, "PRAGMA wal_autocheckpoint = 0", MUCH)
    finding = found(path, "log-large", Severity.WARNING)
    mended(path, finding)


def test_a_log_that_was_large(path: Path, low_limit: None) -> None:
    """Its file keeps its size, but little of it is in use."""
    healthy(path)
    killed(path, MUCH, "PRAGMA wal_checkpoint", "INSERT INTO parents (name) VALUES ('small')")
    finding = found(path, "log-large", Severity.INFO)
    mended(path, finding)


def test_a_log_without_its_index(path: Path, tmp_path: Path) -> None:
    """As after ``cp app.db app.db-wal elsewhere/``: it is not read, as that would create a file."""
    healthy(path)
    killed(path, "INSERT INTO parents VALUES (3, 'c')")
    copy = tmp_path / "copy" / "app.db"
    copy.parent.mkdir()
    for side in ("", "-wal"):
        shutil.copy(f"{path}{side}", f"{copy}{side}")
    finding = found(copy, "log-without-index", Severity.WARNING)
    assert {entry.name for entry in copy.parent.iterdir()} == {"app.db", "app.db-wal"}
    assert examine(copy).checked is None
    mended(copy, finding)
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT count(*) FROM parents").fetchone() == (3,)


@pytest.mark.parametrize("new", [("PRAGMA page_size = 8192", WAL), ("PRAGMA user_version = 1",)])
def test_the_log_of_another_database(path: Path, tmp_path: Path, new: tuple[str, ...]) -> None:
    """The database was replaced by one with other pages, or without WAL, but its log was not."""
    healthy(path)
    killed(path, "INSERT INTO parents VALUES (3, 'c')")
    execute(tmp_path / "new.db", *new, *SCHEMA)
    (tmp_path / "new.db").replace(path)
    before = path.read_bytes()
    finding = found(path, "foreign-log", Severity.ERROR)
    assert path.read_bytes() == before
    assert examine(path).checked is None
    shell(finding.mend.partition("away: ")[2], tmp_path)
    assert set(ids(path)) <= {"journal-mode"}


def test_a_hot_journal(path: Path) -> None:
    """A process was killed while it wrote to the database; the next reader rolls that back."""
    execute(path, *SCHEMA)
    killed(
        *(path, "PRAGMA cache_size = 1", "BEGIN IMMEDIATE"),
        f"{numbers(1000)} INSERT INTO parents (name) SELECT randomblob(1000) FROM n",
    )
    before = path.read_bytes()
    finding = found(path, "hot-journal", Severity.ERROR)
    assert path.read_bytes() == before
    assert examine(path).checked is None
    mended(path, finding, left=["journal-mode"])


@on_linux
def test_a_journal_in_use(path: Path) -> None:
    """The journal of a running transaction is not hot."""
    execute(path, *SCHEMA)
    with OtherProcess(path) as writer:
        assert writer.execute("BEGIN IMMEDIATE") == "[]"
        assert writer.execute("INSERT INTO parents VALUES (3, 'c')") == "[]"
        assert Path(f"{path}-journal").exists()
        assert ids(path) == ["journal-mode", "write-lock"]


@on_linux
def test_a_journal_that_is_written_to_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is the journal of a transaction that exceeds its cache and locks all others out."""
    monkeypatch.setattr(examining, "BUSY_SECONDS", 0.05)
    execute(path, *SCHEMA)
    with OtherProcess(path) as writer:
        for statement in ("PRAGMA cache_size = 1", "BEGIN IMMEDIATE", MUCH):
            assert writer.execute(statement) == "[]"
        assert ids(path) == ["exclusive-lock", "write-lock"]


def test_opened_while_it_is_examined(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed database is read without locks, and read again if a process opens it meanwhile."""
    healthy(path)
    execute(path, f"{numbers(100_000)} INSERT INTO parents SELECT i + 9, 'x' FROM n")
    others: list[OtherProcess] = []

    def open_it() -> None:
        if not others:
            other = OtherProcess(path).__enter__()
            others.append(other)
            assert other.execute("DELETE FROM parents WHERE id = 1") == "[]"

    try:
        report = examine(path, on_progress=open_it)
    finally:
        others[0].end()
    assert [finding.id for finding in report.findings] == ["foreign-keys"]
