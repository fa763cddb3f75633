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


def test_stopping(tmp_path: Path) -> None:
    """The program prints what the page says, line numbers included."""
    program = tmp_path / "stopping.py"
    program.write_text(blocks("stopping.md", "python")[0])
    done = subprocess.run(
        [sys.executable, "stopping.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
        env={"PYTHONUNBUFFERED": "1"},
    )
    output = re.sub(r"idle for \d\.\d s", "idle for 0.5 s", done.stdout)
    assert output == blocks("stopping.md", "text")[0]
