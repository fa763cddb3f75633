"""The test files, in batches of about equal duration."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDERS = (
    "test/base",
    "test/dialect/sqlite",
    "test/dialect/test_all.py",
    "test/dialect/test_suite.py",
    "test/engine",
    "test/ext",
    "test/orm",
    "test/sql",
)
"""Left out: profiles, typing, and the dialects of other databases."""

BATCH_BYTES = 450_000
"""The size of test code in a batch: about 20 batches, each a minute or two of one process."""


def batches(source: Path, only: Sequence[str]) -> list[list[Path]]:
    """Split the files below `only` (by default all folders), the same way for every run."""
    files = [path for name in only or FOLDERS for path in _files(source / name)]
    result: list[list[Path]] = []
    size = BATCH_BYTES
    for path in files:
        if size >= BATCH_BYTES:
            result.append([])
            size = 0
        result[-1].append(path)
        size += path.stat().st_size
    return result


def _files(path: Path) -> list[Path]:
    files = [path] if path.is_file() else sorted(path.rglob("test_*.py"))
    return [file for file in files if _is_for_this_python(file)]


def _is_for_this_python(file: Path) -> bool:
    """Return False if the file name ends in a later version, such as ``_py314``."""
    version = re.search(r"_py3(\d+)$", file.stem)
    return version is None or sys.version_info >= (3, int(version[1]))
