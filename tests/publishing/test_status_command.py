"""``sa-sqlite-pool status``: its output, its JSON, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sa_sqlite_pool.cli.app import app
from sa_sqlite_pool.cli.output import console
from sa_sqlite_pool.cli.status import status
from sa_sqlite_pool.errors import DatabaseNotUsableError
from sa_sqlite_pool.publishing.overview import Overview, look_at
from tests.children import Child, needs_fork_server
from tests.publishing import programs
from tests.publishing.looking import sockets, stop

pytestmark = needs_fork_server
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs the system's list of locks")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_width", 300)


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(path: Path, *options: str) -> str:
        app(["status", str(path), *options], standalone_mode=False)
        return capsys.readouterr().out

    return run


def lines(output: str) -> list[list[str]]:
    """Return the words of each line; columns are two spaces apart."""
    return [line.split() for line in output.splitlines()]


@on_linux
def test_a_frame_names_the_writer_and_who_waits(path: Path, shown: Any) -> None:
    """It shows process, task, line and SQL, and the next in line."""
    with Child(programs.opens, path) as one, Child(programs.opens, path) as other:
        assert [one.hear(), other.hear()] == ["open", "open"]
        assert one.ask("write") == "written"
        other.tell("write")
        while "line" not in (output := shown(path)).partition("locks now")[2]:
            pass
        words = lines(output)
        first = next(line for line in words if line[:2] == [str(one.pid), "writes"])
        second = next(line for line in words if line[:2] == [str(other.pid), "waits"])
        assert "idle" in first
        assert first[-6:] == ["children.py:119", "INSERT", "INTO", "t", "VALUES", "(1)"]
        assert f"waits for process {one.pid}" in " ".join(second)
        assert f"turn    taken by process {one.pid} " in output
        assert f"first in line is process {other.pid} " in output
        assert f"{path.name}  4 KiB, 2 processes" in output
        assert "limits: soft 16.0 MiB, hard 64.0 MiB" in output
        locks = [line for line in words if line and line[-1] in {"read", "line"}]
        assert [line[0] for line in locks] == [str(pid) for pid in sorted([one.pid, other.pid])]
        assert "outside this package" not in output
        one.tell("commit")
        assert [one.hear(), other.hear()] == ["done", "written"]


@on_linux
def test_programs_that_do_not_use_the_package(path: Path, shown: Any) -> None:
    """Their locks are shown without any publishing process."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (n INTEGER)")
        connection.execute("BEGIN IMMEDIATE")
        output = shown(path)
    assert "no process publishes its statistics" in output
    assert "turn    free" in output
    (locks,) = [line for line in lines(output) if line[:1] == [str(os.getpid())]]
    assert locks[2:] == ["write,", "read", "outside", "this", "package"]
    assert f"read by process {os.getpid()} (" in output


@on_linux
def test_without_a_log(path: Path, shown: Any) -> None:
    """Nothing shows whether a process uses the package, so no process is called outside."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t (n INTEGER)")
        connection.execute("BEGIN IMMEDIATE")
        output = shown(path)
    assert "log     none" in output
    (locks,) = [line for line in lines(output) if line[:1] == [str(os.getpid())]]
    assert locks[2:] == ["reserved,", "shared"]


def test_a_stopped_process_is_shown(path: Path, shown: Any) -> None:
    """It is shown beside those that answer."""
    with Child(programs.opens, path) as one, Child(programs.opens, path) as other:
        assert [one.hear(), other.hear()] == ["open", "open"]
        stop(other, path)
        output = shown(path)
        assert "2 processes, 1 without an answer" in output
        (line,) = [line for line in output.splitlines() if "does not respond within 1 s" in line]
        assert line.startswith(f"process {other.pid} ")


def test_the_document(path: Path, shown: Any) -> None:
    """It has the keys that docs/status.md promises."""
    with Child(programs.opens, path) as child:
        assert child.hear() == "open"
        assert child.ask("write") == "written"
        found = json.loads(shown(path, "--json"))
        assert list(found) == [
            *("command", "path", "version", "database", "at", "size"),
            *("processes", "locks", "locks_known", "log"),
        ]
        assert (found["command"], found["version"]) == ("status", 1)
        page = (Path(__file__).parents[2] / "docs" / "status.md").read_text()
        assert [key for key in found if f"`{key}`" not in page] == []
        assert found["path"] == str(path)
        assert found["database"] == os.path.realpath(path)
        (process,) = found["processes"]
        assert list(process) == ["pid", "process", "since", "error", "statistics"]
        assert (process["pid"], process["error"]) == (child.pid, None)
        assert process["statistics"]["turn"]["holder"]["sql"] == "INSERT INTO t VALUES (1)"
        assert list(found["log"]) == ["size", "frames", "frame_size"]
        if sys.platform == "linux":
            (locks,) = found["locks"]
            assert list(locks) == ["pid", "process", "locks", "uses_package"]
            assert (locks["pid"], locks["uses_package"]) == (child.pid, True)
            assert set(locks["locks"]) == {"turn", "write", "read"}


def test_looking_changes_nothing(path: Path, shown: Any) -> None:
    """The files and their times stay unchanged."""
    with Child(programs.opens, path) as child:
        assert child.hear() == "open"

        def files() -> dict[str, tuple[int, int]]:
            found = {entry.name: entry.stat() for entry in path.parent.iterdir()}
            return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}

        before = files()
        shown(path)
        assert files() == before
        assert len(sockets(path)) == 1


@pytest.mark.parametrize("kind", ["nothing", "directory"])
def test_what_is_no_file_is_an_error(path: Path, kind: str) -> None:
    """The error says so, and the file is not created."""
    if kind == "directory":
        path.mkdir()
    with pytest.raises(DatabaseNotUsableError, match=r"is no file|is a directory"):
        app(["status", str(path)], standalone_mode=False)
    assert path.exists() == (kind == "directory")


def test_watching_a_terminal(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each interval shows a frame, with rates since the previous one; Ctrl-C ends it cleanly."""
    seen: list[Overview] = []

    def look(database: str, timeout: float) -> Overview:
        assert timeout == 0.1
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(look_at(database, timeout))
        return seen[-1]

    monkeypatch.setattr(sys.modules[status.__module__], "look_at", look)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console, "_force_terminal", True)
    monkeypatch.setattr(console, "is_interactive", True)
    with Child(programs.opens, path) as child:
        assert child.hear() == "open"
        app(["status", str(path), "--watch", "--interval", "0.1"], standalone_mode=False)
    assert len(seen) == 3
    assert capsys.readouterr().out.count("SQL/s") >= 3


def test_watching_without_a_terminal_prints_one_frame(path: Path, shown: Any) -> None:
    """Frames that overwrite one another are not written to a file or a pipe."""
    path.touch()
    output = shown(path, "--watch")
    assert output.count("no process publishes") == 1
    assert "\x1b" not in output


def test_watching_in_json(path: Path) -> None:
    """Each document is one line; Ctrl-C ends it with exit code 0 and no traceback."""
    path.touch()
    options = "--watch", "--json", "--interval", "0.1"
    with subprocess.Popen(
        [sys.executable, "-m", "sa_sqlite_pool", "status", str(path), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        found = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stderr.read() == ""
    assert [one["command"] for one in found] == ["status"] * 3
    assert len({one["at"] for one in found}) == 3
