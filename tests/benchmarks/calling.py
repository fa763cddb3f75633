"""The benchmarks' commands, called as from a shell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_TIMEOUT_S = 240.0

CORES = (None, 1) if sys.platform == "linux" else (None,)
"""Numbers of cores to which a process can be pinned here (None: all); and as options."""

ON_ALL_CORES = ("--cores", "all", "--cores", "1") if sys.platform == "linux" else ()

Json = dict[str, Any]


def call(*arguments: str, module: str = "benchmarks") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
