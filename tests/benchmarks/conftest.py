"""What one quick call of ``python -m benchmarks`` wrote, for all tests of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from .calling import ON_ALL_CORES, call


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of all loads, on all cores and pinned to one where that is possible, as JSON."""
    file = tmp_path_factory.mktemp("benchmarks") / "report.json"
    completed = call("--quick", *ON_ALL_CORES, "--json", str(file))
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return file
