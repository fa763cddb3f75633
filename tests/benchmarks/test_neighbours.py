"""Busy processes run beside the measured one, and end with it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from benchmarks.measuring.cores import limited
from benchmarks.measuring.neighbours import beside

from .calling import call

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc")


def children() -> set[int]:
    """Return the child processes of this thread."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return {int(one) for one in found.split()}


def test_as_many_as_asked_for() -> None:
    """They have the same priority and cores as the run; none is left, whatever the run does."""
    assert sys.platform == "linux"
    before = children()
    with pytest.raises(ZeroDivisionError), limited(1), beside(2):
        started = children() - before
        assert len(started) == 2
        for one in started:
            assert os.getpriority(os.PRIO_PROCESS, one) == os.getpriority(os.PRIO_PROCESS, 0)
            assert os.sched_getaffinity(one) == os.sched_getaffinity(0)
        raise ZeroDivisionError
    assert children() == before


def test_the_report_says_beside_how_many(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    done = call("point-reads", "--quick", "--beside", "2", "--json", str(file))
    assert done.returncode == 0, done.stderr
    assert json.loads(file.read_text())["environment"]["beside"] == 2
    assert "beside 2 busy processes" in done.stdout
