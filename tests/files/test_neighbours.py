"""Other processes that use a database, as Linux reports them."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sa_sqlite_pool.files.neighbours import (
    Presence,
    describe_writer,
    outside_readers,
    outside_writers,
    users,
)
from sa_sqlite_pool.system import proc_locks
from tests.wal.others import PLAIN, PRESENT, OtherProcess

fcntl = pytest.importorskip("fcntl", reason="there are no such locks here")
pytestmark = pytest.mark.skipif(
    not Path("/proc/locks").exists(), reason="the system does not tell who has locks"
)


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    """Return a connection of this process to a database whose log is in use."""
    connection = sqlite3.connect(path, timeout=10, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE t (id)")
    yield connection
    connection.close()


Connection = sqlite3.Connection


def inode(path: Path) -> int:
    return os.stat(f"{path}-wal").st_ino


def shown(path: Path) -> bool:
    """Return whether a process shows its presence on the log, which prevents exclusive locks."""
    with open(f"{path}-wal", "rb") as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_a_reader_of_another_process(path: Path, connection: Connection) -> None:
    """It is named while its transaction is open, and is not listed as a writer."""
    with OtherProcess(path) as other:
        assert outside_readers(str(path)) == []
        other.execute("BEGIN")
        assert other.execute("SELECT count(*) FROM t") == "[(0,)]"
        assert outside_readers(str(path)) == [other.name]
        assert outside_writers(str(path)) == []
        other.execute("ROLLBACK")
        assert outside_readers(str(path)) == []


def test_a_reader_of_the_database_alone(path: Path, connection: Connection) -> None:
    """It began when the whole log was in the database, and holds up later commits."""
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    with OtherProcess(path) as other:
        other.execute("BEGIN")
        assert other.execute("SELECT count(*) FROM t") == "[(0,)]"
        connection.execute("INSERT INTO t VALUES (1)")
        connection.commit()
        assert connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[2] == 0
        assert outside_readers(str(path)) == [other.name]
        other.execute("ROLLBACK")


def test_readers_are_named_once_each(path: Path, connection: Connection) -> None:
    """Each is named once, in the order of their process numbers, whichever snapshots they read."""
    with OtherProcess(path) as first, OtherProcess(path) as second:
        for other in (first, second):
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM t")
            connection.execute("INSERT INTO t VALUES (1)")
        assert sorted(outside_readers(str(path))) == sorted([first.name, second.name])
        first.end()
        assert outside_readers(str(path)) == [second.name]


def test_a_writer_of_another_process(path: Path, connection: Connection) -> None:
    """It is named while its transaction is open."""
    with OtherProcess(path) as other:
        assert outside_writers(str(path)) == []
        other.execute("BEGIN IMMEDIATE")
        assert outside_writers(str(path)) == [other.name]
        other.execute("COMMIT")
        assert outside_writers(str(path)) == []


def test_this_process_is_no_outsider(path: Path, connection: Connection) -> None:
    """It is never listed, whatever it does, and whether or not it shows its presence."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO t VALUES (1)")
    assert outside_readers(str(path)) == []
    assert outside_writers(str(path)) == []
    connection.execute("ROLLBACK")


def test_a_process_that_uses_the_package(path: Path, connection: Connection) -> None:
    """It shows its presence, so it is no outside writer; as a reader, it may be in the way."""
    with OtherProcess(path, present=True) as other:
        other.execute("BEGIN IMMEDIATE")
        assert outside_writers(str(path)) == []
        assert outside_readers(str(path)) == [other.name]
        with OtherProcess(path) as stranger:
            assert stranger.execute("SELECT count(*) FROM t") == "[(0,)]"
        other.end()
    assert not shown(path)


def test_what_has_the_lock(path: Path, connection: Connection) -> None:
    """Only a process without presence is called outside; if nothing is known, None is returned."""
    assert describe_writer(str(path)) is None
    connection.execute("BEGIN IMMEDIATE")
    assert describe_writer(str(path)) == "another connection of this process"
    connection.execute("ROLLBACK")
    for present in (True, False):
        with OtherProcess(path, present=present) as other:
            other.execute("BEGIN IMMEDIATE")
            outside = (
                ""
                if present
                else " outside this package (for example, an sqlite3 shell or a stock engine)"
            )
            assert describe_writer(str(path)) == f"{other.name}{outside}"


def test_presence_on_one_database_is_none_on_another(
    path: Path, tmp_path: Path, connection: Connection
) -> None:
    """The locked log shows for which database a process is present."""
    second = tmp_path / "second.db"
    with contextlib.closing(sqlite3.connect(second)) as other_database:
        other_database.execute("PRAGMA journal_mode = WAL")
        other_database.execute("CREATE TABLE t (id)")
        program = f"import sys; sys.argv[1] = {str(second)!r}\n"
        back = f"\nsys.argv[1] = {str(path)!r}\n"
        with OtherProcess(path, program + PRESENT + back + PLAIN) as other:
            other.execute("BEGIN IMMEDIATE")
            assert outside_writers(str(path)) == [other.name]


def test_locks_of_other_files_do_not_count(
    path: Path, tmp_path: Path, connection: Connection
) -> None:
    """A writer of another database is not listed for this one."""
    second = tmp_path / "second.db"
    with OtherProcess(second) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("CREATE TABLE t (id)")
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO t VALUES (1)")
        assert outside_writers(str(second)) == [other.name]
        assert (outside_readers(str(path)), outside_writers(str(path))) == ([], [])


def test_files_that_are_missing(tmp_path: Path) -> None:
    """No process uses a missing file."""
    assert outside_readers(str(tmp_path / "none.db")) == []
    assert outside_writers(str(tmp_path / "none.db")) == []


LINES = """\
1: POSIX  ADVISORY  WRITE {pid} {file} 120 120
1: -> POSIX  ADVISORY  WRITE 991 {file} 120 120
2: FLOCK  ADVISORY  WRITE 992 {file} 0 EOF
3: POSIX  ADVISORY  WRITE 993 00:00:1 120 120
4: POSIX  ADVISORY  READ 994 {file} 120 120
5: OFDLCK ADVISORY  WRITE -1 {file} 120 120
6: POSIX  ADVISORY  WRITE 0 {file} 120 120
7: POSIX  ADVISORY  WRITE 995 {file} 121 127
8: POSIX  ADVISORY  WRITE 996 {file} 0 119
9: POSIX  ADVISORY  READ 997 {file} 123 123
10: POSIX  ADVISORY  READ 998 {file} 124 124
11: POSIX  ADVISORY  READ 999 {file} 127 127
12: POSIX  ADVISORY  READ 1000 {file} 128 128
something else entirely
"""


def test_what_the_system_lists(
    path: Path, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locks on the bytes of the writer and of readers count; unknown processes are left out."""
    listed = tmp_path / "locks"
    file = proc_locks.identity(f"{path}-shm")
    listed.write_text(LINES.format(pid=2**22 + 1, file=file))
    monkeypatch.setattr(proc_locks, "_LOCKS", listed)
    assert outside_writers(str(path)) == [f"process {2**22 + 1}"]
    readers = outside_readers(str(path))
    assert [reader.split()[1] for reader in readers] == ["997", "998", "999"]
    monkeypatch.setattr(proc_locks, "_LOCKS", tmp_path / "missing")
    assert outside_writers(str(path)) == outside_readers(str(path)) == []


def test_a_process_that_ends_while_its_files_are_listed(
    path: Path, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left out, and the others are listed."""
    command = [sys.executable, "-c", "input()"]
    with OtherProcess(path) as other, subprocess.Popen(command, stdin=subprocess.PIPE) as ending:

        def end_at(of_system: Any) -> Any:
            def listed(directory: Any = ".") -> Any:
                if str(directory) == f"/proc/{ending.pid}/fd":
                    ending.kill()
                    ending.wait()
                return of_system(directory)

            return listed

        for name in ("listdir", "scandir"):
            monkeypatch.setattr(os, name, end_at(getattr(os, name)))
        assert other.name in users(str(path))
        assert ending.returncode == -signal.SIGKILL


def test_presence_follows_the_log(path: Path, connection: Connection) -> None:
    """If another file replaces the log, presence moves to it, and the old descriptor is closed."""
    presence = Presence(f"{path}-wal")
    assert not shown(path)
    presence.show(inode(path))
    assert shown(path)
    first, close = descriptors(), presence._close
    presence.show(inode(path))
    assert presence._close is close  # not reopened
    os.rename(f"{path}-wal", f"{path}-old")
    Path(f"{path}-wal").touch()
    assert not shown(path)
    presence.show(inode(path))
    assert shown(path)
    assert len(descriptors()) == len(first)
    os.replace(f"{path}-old", f"{path}-wal")
    presence.hide()


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_hiding(path: Path, connection: Connection) -> None:
    """Presence is hidden at once; hiding twice is allowed, and it can be shown again."""
    before = descriptors()
    presence = Presence(f"{path}-wal")
    presence.hide()
    presence.show(inode(path))
    presence.hide()
    assert not shown(path)
    presence.hide()
    assert descriptors() == before
    presence.show(inode(path))
    assert shown(path)
    presence.hide()


def test_presence_ends_with_its_owner(path: Path, connection: Connection) -> None:
    """No descriptor stays open."""
    gc.collect()  # garbage of other tests
    before = descriptors()
    presence = Presence(f"{path}-wal")
    presence.show(inode(path))
    del presence
    gc.collect()
    assert not shown(path)
    assert descriptors() == before


def test_a_log_that_is_gone(tmp_path: Path) -> None:
    """A log that another process has deleted in between raises no error."""
    presence = Presence(str(tmp_path / "missing-wal"))
    presence.show(7)
    presence.hide()


def test_many_processes_are_present(path: Path, connection: Connection) -> None:
    """The presence of one process does not end that of another."""
    presence = Presence(f"{path}-wal")
    presence.show(inode(path))
    with OtherProcess(path, present=True):
        presence.hide()
        assert shown(path)
    assert not shown(path)


def test_the_child_of_a_fork_is_not_present(path: Path, connection: Connection) -> None:
    """The child closes its inherited descriptor, so the parent, which stays present, can hide."""
    presence = Presence(f"{path}-wal")
    presence.show(inode(path))
    leave, left = os.pipe(), os.pipe()
    inherited = len(descriptors())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        closed = len(descriptors()) < inherited
        os.write(left[1], b"y" if closed else b"n")
        os.read(leave[0], 1)
        os._exit(0)
    assert os.read(left[0], 1) == b"y"
    found = [shown(path)]
    presence.hide()
    found.append(shown(path))  # the child still runs
    os.write(leave[1], b"x")
    assert os.waitpid(pid, 0)[1] == 0
    assert found == [True, False]
    for end in (*leave, *left):
        os.close(end)


def test_a_program_that_is_started_inherits_nothing(path: Path, connection: Connection) -> None:
    """The descriptor is closed on ``exec``, even if all other descriptors are inherited."""
    presence = Presence(f"{path}-wal")
    presence.show(inode(path))
    pid = os.posix_spawn(
        sys.executable,
        [
            sys.executable,
            "-c",
            "import os, sys; "
            "ends = [os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd')"
            " if os.path.exists(f'/proc/self/fd/{n}')]; "
            "sys.exit(any(end.endswith('-wal') for end in ends) * 7)",
        ],
        dict(os.environ),
    )
    # SQLite's own descriptor of the log is closed there, too.
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    presence.hide()
