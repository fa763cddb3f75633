"""Output to a pipe that no process reads any more, to a full disk, or to a closed descriptor."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.commanding import ROOT
from tests.doctor.patients import healthy

# status ends by itself, --watch does not; doctor would exit with the code of its findings.
COMMANDS = [["status"], ["status", "--watch", "--json", "--interval=0.1"], ["doctor", "--json"]]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs pipes of POSIX")


def ends(directory: Path, arguments: list[str], **streams: int) -> subprocess.CompletedProcess[str]:
    """Return the result of a command."""
    name, *options = arguments
    (directory / "app.db").unlink(missing_ok=True)
    healthy(directory / "app.db")
    done: subprocess.CompletedProcess[str] = subprocess.run(  # type: ignore[call-overload]
        [sys.executable, "-m", "sa_sqlite_pool", name, "app.db", *options],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        timeout=60,
        check=False,
        **{"stderr": subprocess.PIPE, **streams},
    )
    return done


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_nothing_reads_the_output(tmp_path: Path, arguments: list[str]) -> None:
    """As after ``| head``, the command ends quietly, with its own exit code."""
    unread, output = os.pipe()
    os.close(unread)
    done = ends(tmp_path, arguments, stdout=output)
    os.close(output)
    assert (done.returncode, done.stderr) == (141, "")


def test_nothing_reads_the_error(tmp_path: Path) -> None:
    """The exit code still reports the error."""
    unread, output = os.pipe()
    os.close(unread)
    done = ends(tmp_path, ["doctor", "--wrong"], stderr=output)
    os.close(output)
    assert done.returncode == 4


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_the_error_goes_to_a_full_disk(tmp_path: Path) -> None:
    """The exit code still reports the error."""
    full = os.open("/dev/full", os.O_WRONLY)
    done = ends(tmp_path, ["doctor", "--wrong"], stderr=full)
    os.close(full)
    assert done.returncode == 4


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_the_disk_is_full(tmp_path: Path, arguments: list[str]) -> None:
    """The command fails, and the error is one line."""
    with open("/dev/full", "wb") as full:
        done = ends(tmp_path, arguments, stdout=full.fileno())
    assert done.returncode == 3
    assert done.stderr == "sa-sqlite-pool: [Errno 28] No space left on device\n"


def test_there_is_no_output(tmp_path: Path) -> None:
    """As after ``>&-``, the output is omitted."""
    healthy(tmp_path / "app.db")
    command = '"$0" -m sa_sqlite_pool doctor app.db --json >&-'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="names of files may be any bytes there")
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
@pytest.mark.parametrize("command", ["status", "checkpoint", "doctor"])
def test_names_that_the_encoding_does_not_have(tmp_path: Path, encoding: str, command: str) -> None:
    """Bytes of a file's name are written unchanged; missing characters are written as numbers."""
    path = os.fsencode(tmp_path) + b"/\xff \xe2\x82\xac.db"
    healthy(Path(os.fsdecode(path)))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute('CREATE TABLE "\u20ac" (id INTEGER REFERENCES parents (id))')
    done = subprocess.run(
        [sys.executable, "-m", "sa_sqlite_pool", command, os.path.basename(path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    if command != "status":
        assert done.stdout.startswith(b"\xff " + "\u20ac".encode(encoding, "backslashreplace"))
