"""The examples of docs/, as shown."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def run(page: str, directory: Path) -> str:
    """What the program of a page prints."""
    program = Path(page).with_suffix(".py").name
    (directory / program).write_text(blocks(page, "python")[0])
    done = subprocess.run(
        [sys.executable, program],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
        env={"PYTHONUNBUFFERED": "1"},
    )
    return done.stdout


def test_stopping(tmp_path: Path) -> None:
    """The program prints what the page says, line numbers included."""
    output = re.sub(r"idle for \d\.\d s", "idle for 0.5 s", run("stopping.md", tmp_path))
    assert output == blocks("stopping.md", "text")[0]


def test_wal(tmp_path: Path) -> None:
    """The program prints what the page says; sizes and seconds apart."""
    output = re.sub(r"\d+\.\d (MiB|s)", r"N \1", run("wal.md", tmp_path))
    assert output == blocks("wal.md", "text")[0]
