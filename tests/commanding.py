"""The command in separate processes, and the shell commands that it recommends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import sa_sqlite_pool.cli.app  # noqa: F401 - before the children are forked
from sa_sqlite_pool.cli import main
from tests.children import Child

ROOT = Path(__file__).parent.parent

# A substitute for SQLite's shell, for the recommended commands, if none is installed.
_SQLITE3 = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2].split(";"):
    for row in connection.execute(statement):
        print(*row, sep="|")
connection.close()
"""


class Done(NamedTuple):
    """The result of a command."""

    returncode: int
    stdout: str
    stderr: str


def run(directory: Path, *arguments: str) -> Done:
    """Run the command in the directory, in a process that has already imported it."""
    with Child(_run, directory, arguments) as child:
        return Done(*child.hear(60))


def _run(pipe: Connection, directory: Path, arguments: tuple[str, ...]) -> None:
    os.chdir(directory)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(os.devnull, "rb") as nothing, TemporaryFile() as out, TemporaryFile() as err:
        for number, file in enumerate((nothing, out, err)):
            os.dup2(file.fileno(), number)
        sys.argv = ["sa-sqlite-pool", *arguments]
        code: object = None
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
        printed = (os.pread(file.fileno(), 10**6, 0).decode() for file in (out, err))
        pipe.send((code, *printed))


def answer(directory: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    """Return the output with ``--json``, which must be all that it prints."""
    done = run(directory, *arguments, "--json")
    assert (done.returncode, done.stderr) == (code, "")
    found: dict[str, Any] = json.loads(done.stdout)
    assert found.pop("command") == arguments[0]
    return found


def shell(command: str, directory: Path) -> str:
    """Run a command line as if copied by a user, and return its output."""
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
