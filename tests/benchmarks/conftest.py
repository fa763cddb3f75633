"""What one quick call of ``python -m benchmarks`` wrote, for all tests of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from .calling import call


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of all loads, as JSON."""
    file = tmp_path_factory.mktemp("benchmarks") / "report.json"
    completed = call("--quick", "--json", str(file))
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return file
