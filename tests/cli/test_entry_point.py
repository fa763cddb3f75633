"""How the command is installed, and found."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import sa_sqlite_pool
from tests.commanding import ROOT
from tests.doctor.patients import healthy


def test_the_entry_point_is_there() -> None:
    """The entry point from which ``pip`` creates ``sa-sqlite-pool`` can be imported."""
    project = (ROOT / "pyproject.toml").read_text()
    (line,) = (each for each in project.splitlines() if each.startswith("sa-sqlite-pool = "))
    module, _, name = line.partition('"')[2].rstrip('"').partition(":")
    assert callable(getattr(import_module(module), name))


def test_as_a_module(tmp_path: Path) -> None:
    """``python -m sa_sqlite_pool`` works where the command is not on the path."""
    done = subprocess.run(
        [sys.executable, "-m", "sa_sqlite_pool", "doctor", "missing.db"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "sa-sqlite-pool: there is no file missing.db; correct the path\n"


def test_its_version(tmp_path: Path) -> None:
    """The version of SQLite is printed, too, because users are asked for it."""
    done = subprocess.run(
        [sys.executable, "-m", "sa_sqlite_pool", "--version"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout
        == f"sa-sqlite-pool {sa_sqlite_pool.__version__}, SQLite {sqlite3.sqlite_version}\n"
    )


def test_the_installed_command(tmp_path: Path) -> None:
    """The installed command runs as users call it."""
    command = Path(sys.executable).parent / "sa-sqlite-pool"
    if not command.exists():
        pytest.skip("the package was installed before it had a command")
    done = subprocess.run(
        [command, "doctor", "missing.db"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "sa-sqlite-pool: there is no file missing.db; correct the path\n"


def run_program(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program that calls ``main()`` for the doctor in its own process."""
    return subprocess.run(
        [sys.executable, "-c", program, "doctor", "app.db"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra(tmp_path: Path, missing: str) -> None:
    """The command prints what to install; the package and the doctor work without it."""
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "import sa_sqlite_pool, sa_sqlite_pool.doctor\n"
        "from sa_sqlite_pool.cli import main\n"
        "main()\n"
    )
    done = run_program(program, tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        f"sa-sqlite-pool: {missing} is not installed, which the command needs: "
        "pip install 'sa-sqlite-pool[cli]'\n"
    )


def test_interrupted_while_it_is_imported(tmp_path: Path) -> None:
    """Ctrl-C before the start prints nothing, not even a traceback."""
    program = (
        "import sys\n"
        "from sa_sqlite_pool.cli import main\n"
        "class Interrupts:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupts())\n"
        "main()\n"
    )
    done = run_program(program, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("command", ["checkpoint", "backup"])
def test_a_system_without_threads_to_spare(path: Path, command: str) -> None:
    """The message is one line that names the problem and what to check."""
    healthy(path)
    more = "copy.db" if command == "backup" else "--json"
    program = (
        "import sys, threading\n"
        "from sa_sqlite_pool.cli.app import run\n"
        "def refuse(thread):\n"
        '    raise RuntimeError("can\'t start new thread")\n'
        "threading.Thread.start = refuse\n"
        f"sys.argv = ['sa-sqlite-pool', {command!r}, {str(path)!r}, {more!r}]\n"
        "run()\n"
    )
    done = run_program(program, path.parent)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        "sa-sqlite-pool: can't start new thread: this user has reached its limit of threads "
        "(ulimit -u)\n"
    )


def test_a_bar_for_whoever_looks(path: Path) -> None:
    """The bar is written to stderr, and only to a terminal; stdout stays usable for scripts."""
    pty = pytest.importorskip("pty", reason="there are no such terminals here")
    healthy(path)
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "sa_sqlite_pool", "doctor", str(path), "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        timeout=60,
        check=True,
    )
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while chunk := os.read(ours, 65536):
            seen += chunk
    os.close(ours)
    assert b"integrity_check" in seen
    assert json.loads(done.stdout)["findings"] == []
