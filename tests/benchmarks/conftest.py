"""The output of one quick run of ``python -m benchmarks``, for all tests of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from .calling import ON_ALL_CORES, call


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the JSON report of all loads, on all cores and, if possible, pinned to one."""
    file = tmp_path_factory.mktemp("benchmarks") / "report.json"
    completed = call("--quick", *ON_ALL_CORES, "--json", str(file))
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return file
