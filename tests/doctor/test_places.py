"""The location of a database, its permissions, and the processes that use it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from sa_sqlite_pool.doctor import HeldLock, Severity, examine, examining, processes
from sa_sqlite_pool.system import mounts
from tests.commanding import shell
from tests.doctor.patients import (
    SCHEMA,
    as_nobody,
    execute,
    found,
    healthy,
    ids,
    killed,
    on_linux,
)
from tests.wal.others import PACKAGE, OtherProcess

pytestmark = on_linux

as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs another user's files"
)


# -- file systems ----------------------------------------------------------------------------------


def mounted(path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """Let the system's list contain this mount, too."""
    listing = path.parent.parent / f"{path.parent.name}-mountinfo"
    listing.write_text(f"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n{line}\n")
    monkeypatch.setattr(mounts, "_MOUNTINFO", listing)


def test_on_a_server(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """WAL is an error there; another mode works if locks do, and WAL is not recommended."""
    healthy(path)
    mounted(path, monkeypatch, f"2 1 0:9 / {path.parent} rw - nfs4 nas:/home rw")
    finding = found(path, "file-system", Severity.ERROR)
    assert f"is on nfs4, mounted at {path.parent}" in finding.message
    copy = path.parent.parent / f"{path.parent.name}-copy.db"
    command = finding.mend.partition(" on the one")[0]
    monkeypatch.undo()
    assert "verified" in shell(
        command.replace("/a/local/directory/copy.db", str(copy)), path.parent
    )
    copy.unlink()


def test_on_a_server_without_wal(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(path, *SCHEMA)
    mounted(path, monkeypatch, f"2 1 0:9 / {path.parent} rw - nfs4 nas:/home rw")
    assert ids(path) == ["file-system"]
    found(path, "file-system", Severity.WARNING)


def test_mounted_by_itself(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``docker run -v ./app.db:/app/app.db`` does, only the file is mounted."""
    healthy(path)
    mounted(path, monkeypatch, f"2 1 8:1 /home/app.db {path} rw - ext4 /dev/sda1 rw")
    assert found(path, "mounted-alone", Severity.ERROR).mend == f"mount {path.parent} instead"


def test_mounted_read_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    healthy(path)
    mounted(path, monkeypatch, f"2 1 8:1 / {path.parent} ro - ext4 /dev/sda1 ro")
    finding = found(path, "read-only-mount", Severity.ERROR)
    assert finding.mend == f"mount -o remount,rw {path.parent}"
    assert ids(path) == ["read-only-mount"]


# -- permissions -----------------------------------------------------------------------------------


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """Yield a directory open to all users; Pytest closes its own to others at each start."""
    with TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        yield Path(directory)


def test_a_read_only_directory(open_directory: Path) -> None:
    """It is examined nevertheless, and no file is created in it."""
    closed, path = open_directory, open_directory / "app.db"
    healthy(path)
    path.chmod(0o666)
    closed.chmod(0o555)
    (line,) = as_nobody(path)
    assert line.startswith(f"read-only-directory the directory {closed} is not writable by this")
    assert "dr-xr-xr-x of " in line
    assert os.listdir(closed) == ["app.db"]
    closed.chmod(0o777)
    assert as_nobody(path) == []


def test_a_read_only_file(open_directory: Path) -> None:
    path = open_directory / "app.db"
    healthy(path)
    path.chmod(0o444)
    (line,) = as_nobody(path)
    assert line.startswith(f"read-only-file {path} may not be read and written by this user")
    assert f"chmod u+rw {path}" in line
    path.chmod(0o666)
    assert as_nobody(path) == []


@as_root
def test_a_log_that_this_user_may_not_read(open_directory: Path) -> None:
    """SQLite's message is passed on, along with the permissions."""
    path = open_directory / "app.db"
    healthy(path)
    path.chmod(0o666)
    killed(path, "INSERT INTO parents VALUES (3, 'c')")
    for side in ("-wal", "-shm"):
        Path(f"{path}{side}").chmod(0o600)
    assert {line.split()[0] for line in as_nobody(path)} == {"not-examined", "read-only-file"}


@as_root
def test_a_log_of_another_user(path: Path) -> None:
    """A program run by root created it, and the owner's program cannot open it."""
    healthy(path)
    killed(path, "INSERT INTO parents VALUES (3, 'c')")
    os.chown(path, 65534, 65534)
    for _ in range(2):  # an examination by root does not change it
        assert ids(path) == ["owner", "owner"]
    for finding in examine(path).findings:
        assert finding.severity is Severity.ERROR
        assert "of root, and " in finding.message
        shell(finding.mend, path.parent)
    assert ids(path) == []


@as_root
def test_a_log_that_a_group_shares(path: Path) -> None:
    """Another owner does no harm if the group may write."""
    healthy(path)
    killed(path, "INSERT INTO parents VALUES (3, 'c')")
    os.chown(path, 65534, 0)
    for side in ("-wal", "-shm"):
        Path(f"{path}{side}").chmod(0o660)
    assert ids(path) == []


# -- other processes -------------------------------------------------------------------------------


def lock_names(path: Path) -> list[str]:
    return [lock.lock for lock in examine(path).locks]


def test_a_write_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that holds it is named, with the command that ends the process."""
    monkeypatch.setattr(processes, "has_reset_bug", lambda version: False)
    healthy(path)
    with OtherProcess(path) as other:
        assert other.execute("BEGIN IMMEDIATE") == "[]"
        finding = found(path, "write-lock", Severity.INFO)
        assert finding.message.startswith(other.name)
        assert {*lock_names(path)} == {"shared", "read", "write"}
        shell(finding.mend.partition("or: ")[2], path.parent)
    assert ids(path) == []


def test_a_writer_that_comes_and_goes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy application is in a transaction at every check, which is no finding."""
    monkeypatch.setattr(processes, "has_reset_bug", lambda version: False)
    healthy(path)
    with OtherProcess(path) as other:
        assert other.execute("BEGIN IMMEDIATE") == "[]"
        pauses = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            assert other.execute("COMMIT") == "[]"

        monkeypatch.setattr(processes, "pause", pause)
        assert ids(path) == []
        assert len(pauses) == 1


@pytest.mark.parametrize(
    ("begin", "lock"), [("BEGIN IMMEDIATE", "reserved"), ("BEGIN EXCLUSIVE", "exclusive")]
)
def test_locks_without_wal(
    path: Path, monkeypatch: pytest.MonkeyPatch, begin: str, lock: str
) -> None:
    """They are on the database itself, and an exclusive one prevents all reads."""
    monkeypatch.setattr(examining, "BUSY_SECONDS", 0.05)
    execute(path, *SCHEMA)
    with OtherProcess(path) as other:
        assert other.execute(begin) == "[]"
        report = examine(path)
        pid = int(other.name.split()[1])
        assert HeldLock(pid, "python", lock) in [
            HeldLock(each.pid, "python", each.lock) for each in report.locks
        ]
        if lock == "exclusive":
            finding = found(path, "exclusive-lock", Severity.ERROR)
            assert finding.message.startswith(f"{other.name} has held SQLite's exclusive lock")
            assert other.name in finding.mend
            assert report.checked is None
    assert ids(path) == ["journal-mode"]


@pytest.mark.parametrize("statement", ["DELETE FROM children", "SELECT * FROM parents"])
def test_a_process_that_has_a_log_to_itself(
    path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    """In that case the log has no index, which is not reported as missing, and nothing is read."""
    monkeypatch.setattr(examining, "BUSY_SECONDS", 0.05)
    healthy(path)
    with OtherProcess(path) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute(statement)
        assert not Path(f"{path}-shm").exists()
        assert ids(path) == ["exclusive-lock", "write-lock"]
        assert other.name in found(path, "exclusive-lock", Severity.ERROR).message
        assert examine(path).checked is None
        monkeypatch.setattr(processes, "pause", lambda seconds: other.end())
        monkeypatch.setattr(examining, "BUSY_SECONDS", 60.0)
        left = ["log-without-index"] if statement.startswith("DELETE") else []
        assert ids(path) == left  # it was killed


def test_a_foreign_writer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported if SQLite can lose commits because of it, and only then."""
    healthy(path)
    with OtherProcess(path) as other:
        assert other.execute("BEGIN IMMEDIATE") == "[]"
        monkeypatch.setattr(processes, "has_reset_bug", lambda version: True)
        finding = found(path, "reset-bug", Severity.WARNING)
        assert other.name in finding.message
        assert "3.51.3" in finding.mend
        monkeypatch.setattr(processes, "has_reset_bug", lambda version: False)
        assert ids(path) == ["write-lock"]


def test_a_writer_that_uses_this_package(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a writer loses no commits."""
    monkeypatch.setattr(processes, "has_reset_bug", lambda version: True)
    healthy(path)
    with OtherProcess(path, PACKAGE) as other:
        assert other.execute("DELETE FROM children") == "in transaction"
        assert other.execute("") == "committed"
        assert other.execute("DELETE FROM children") == "in transaction"
        assert ids(path) == ["write-lock"]
