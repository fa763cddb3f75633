"""The command in processes of its own, and the shell commands that it advises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

# The shell of SQLite, as far as it is advised, where none is installed.
_SQLITE3 = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2].split(";"):
    for row in connection.execute(statement):
        print(*row, sep="|")
connection.close()
"""


def run(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m sa_sqlite_pool`` in the directory."""
    return subprocess.run(
        [sys.executable, "-m", "sa_sqlite_pool", *arguments],
        cwd=directory,
        env=_environment(environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def answer(directory: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    """What it prints with ``--json``, which is all that it prints."""
    done = run(directory, *arguments, "--json")
    assert (done.returncode, done.stderr) == (code, "")
    found: dict[str, Any] = json.loads(done.stdout)
    assert found.pop("command") == arguments[0]
    return found


def shell(command: str, directory: Path) -> str:
    """Run a command line as a user would who copies it; return what it prints."""
    commands = directory.parent / f"{directory.name}-bin"
    commands.mkdir(exist_ok=True)
    _script(commands / "sqlite3", _SQLITE3)
    _script(commands / "sa-sqlite-pool", "from sa_sqlite_pool.cli import main\nmain()\n")
    environment = _environment({"PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"})
    done = subprocess.run(
        command,
        shell=True,
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout


def _script(path: Path, program: str) -> None:
    path.write_text(f"#!{sys.executable}\n{program}")
    path.chmod(0o755)


def _environment(more: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "COLUMNS": "80", "PYTHONPATH": str(ROOT), **more}
