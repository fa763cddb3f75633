"""The documentation page of the command, compared with real output."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from pathlib import Path

from sa_sqlite_pool import doctor
from tests.commanding import answer, shell
from tests.doctor.patients import SCHEMA, WAL, execute
from tests.test_docs import DOCS, blocks

PAGE = (DOCS / "command.md").read_text()


def shown() -> list[tuple[str, str]]:
    """Return the commands of the page, each with its output."""
    text = "\n".join(block for block in blocks("command.md", "console") if block.startswith("$ "))
    parts = re.split(r"^\$ (.*)\n", text, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def same(output: str) -> list[str]:
    """Return the lines to compare, without SQLite's version and the figures of tables.

    The size of the log after a checkpoint is left out, too: a checkpoint writes to the log where
    SQLite has the bug of ``wal/reset_bug.py``.
    """
    lines = output.replace(sqlite3.sqlite_version, "3.40.1").strip().splitlines()
    lines = [re.sub(r"^the log has \d+ KiB", "the log has some KiB", line) for line in lines]
    return [re.sub(r"[\d,. ]+", " ", line) if "│" in line else line.rstrip() for line in lines]


def test_the_page(tmp_path: Path) -> None:
    """Each command prints what the page says, from the first to the last."""
    commands = shown()
    assert len(commands) > 10
    for command, output in commands:
        assert same(shell(command, tmp_path)) == same(output), command


def test_from_python(tmp_path: Path) -> None:
    execute(tmp_path / "app.db", WAL, *SCHEMA)
    (program,) = blocks("command.md", "python")
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert [done.stdout] == blocks("command.md", "text")


def test_every_finding_is_listed() -> None:
    """Each finding is listed under its name in the source, and no other names are listed."""
    table = PAGE.partition("### What it finds")[2].partition("\n\nWhich process")[0]
    listed = {
        name
        for line in table.splitlines()
        if line.startswith(("| error", "| warning", "| note"))
        for name in re.findall(r"`([a-z-]+)`", line.split("|")[2])
    }
    source = "".join(path.read_text() for path in sorted(Path(doctor.__file__).parent.glob("*.py")))
    assert listed == set(re.findall(r'Finding\(\s*"([a-z-]+)",', source))


def test_every_name_of_the_json_is_listed(tmp_path: Path) -> None:
    execute(tmp_path / "app.db", WAL, *SCHEMA)
    quick = ("--seconds", "0.01", "--tasks", "1")
    results = [
        answer(tmp_path, "doctor", "app.db"),
        answer(tmp_path, "checkpoint", "app.db"),
        answer(tmp_path, "backup", "app.db", "copy.db"),
        answer(tmp_path, "restore", "copy.db", "app.db"),
        answer(tmp_path, "bench", "app.db", "SELECT 1", *quick),
    ]
    for name in {name for result in results for name in result}:
        assert f"`{name}`" in PAGE, name
