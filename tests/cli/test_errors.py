"""Bad input: one clear line on stderr, nothing on stdout, and never a traceback."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest
from sqlalchemy import text

from sa_sqlite_pool import SQLiteDatabase, WriteTimeout
from sa_sqlite_pool.cli.output import sentence
from tests.commanding import run
from tests.doctor.patients import SCHEMA, execute, healthy, killed

FAILED, USAGE = 3, 4

COMMANDS = {
    "doctor": ("doctor", "{}"),
    "checkpoint": ("checkpoint", "{}"),
    "backup": ("backup", "{}", "copy.db"),
    "bench": ("bench", "{}", "SELECT 1"),
}


def refused(directory: Path, *arguments: str, code: int = FAILED) -> str:
    """Return the only line of the error output."""
    before = sorted(os.listdir(directory))
    done = run(directory, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("sa-sqlite-pool: ")
    assert done.stderr.count("\n") == 1
    assert sorted(os.listdir(directory)) == before
    return done.stderr.removeprefix("sa-sqlite-pool: ").rstrip("\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_files_that_are_no_databases(tmp_path: Path, command: str) -> None:
    """Missing files, directories, text, and files that look encrypted are refused."""
    (tmp_path / "text.db").write_text("Dear diary, " * 100)
    (tmp_path / "encrypted.db").write_bytes(random.Random(1).randbytes(8192))
    os.mkfifo(tmp_path / "fifo.db")

    def said(name: str) -> str:
        return refused(tmp_path, *(word.format(name) for word in COMMANDS[command]))

    assert said("missing.db") == "there is no file missing.db; correct the path"
    assert said(".") == ". is a directory; give the path of a file in it"
    assert said("fifo.db") == "fifo.db is not a regular file; correct the path"
    for name in ("text.db", "encrypted.db"):
        message = said(name)
        assert (
            f"{name} is not an SQLite database, or it is encrypted; it was not changed" in message
        )
        assert "decrypt a copy" in message


@pytest.mark.parametrize("command", ["checkpoint", "backup", "bench"])
def test_the_log_of_another_database(path: Path, command: str) -> None:
    """The log is not applied; the database and the log stay unchanged."""
    healthy(path)
    killed(path, "INSERT INTO parents VALUES (3, 'c')")
    execute(path.with_name("new.db"), "PRAGMA page_size = 8192", *SCHEMA)
    path.with_name("new.db").replace(path)
    before = path.read_bytes()
    words = [word.format("app.db") for word in COMMANDS[command]]
    assert "app.db-wal is the log of another database" in refused(path.parent, *words)
    assert path.read_bytes() == before


def test_restore(path: Path) -> None:
    """A backup or a target that is no database is refused."""
    healthy(path)
    path.with_name("text.db").write_text("Dear diary, " * 100)
    assert "there is no backup at " in refused(path.parent, "restore", "nope.db", "app.db")
    assert "not an SQLite database" in refused(path.parent, "restore", "text.db", "app.db")
    assert "does not exist" in refused(path.parent, "restore", "app.db", "nowhere/app.db")


def test_backup(path: Path) -> None:
    """A target at which no copy can be created is refused."""
    healthy(path)
    assert "does not exist" in refused(path.parent, "backup", "app.db", "nowhere/copy.db")
    assert "is a directory" in refused(path.parent, "backup", "app.db", ".")
    assert "the database itself" in refused(path.parent, "backup", "app.db", "app.db")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing command. See: sa-sqlite-pool --help"),
        (("doctor",), "Missing argument 'FILE'. See: sa-sqlite-pool doctor --help"),
        (("docter", "app.db"), "No such command 'docter'"),
        (("doctor", "app.db", "--fast"), "No such option: --fast"),
        (("checkpoint", "app.db", "--mode", "hard"), "mode must be one of 'passive', 'full',"),
        (("bench", "app.db", "SELECT 1", "--tasks", "0"), "Invalid value for '--tasks'"),
    ],
)
def test_usage(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    """The exit code differs from the doctor's, and the message names the help."""
    said = refused(tmp_path, *arguments, code=USAGE)
    assert message in said
    assert said.endswith(" --help")


def test_help(tmp_path: Path) -> None:
    """Each sub-command is listed, and has its own help page."""
    done = run(tmp_path, "--help")
    assert done.returncode == 0
    for command in ("doctor", "checkpoint", "backup", "restore", "bench"):
        assert command in done.stdout
        assert run(tmp_path, command, "--help").returncode == 0


async def test_a_turn_that_is_not_free_in_time(path: Path) -> None:
    """The advice is one for a command, which has no option for the wait."""
    async with SQLiteDatabase(path, write_timeout=0.01) as db:
        async with db.write() as session:
            await session.execute(text("SELECT 1"))
            checkpoint = asyncio.create_task(db.checkpoint())
            with pytest.raises(WriteTimeout, match="or raise write_timeout") as caught:
                await checkpoint
        assert sentence(caught.value).endswith("shorten that transaction or run the command again")
