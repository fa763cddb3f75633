"""Clean cancellation under load; ``python -m tests.cancellations`` runs longer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.cancellations.loops.closing import run_closing
from tests.cancellations.run import Result, run

COUNT = 1_500
OTHER_LOOPS = {f"loop {number}": asyncio.new_event_loop for number in (1, 2)}


@pytest.fixture(scope="module", params=[1, 2], ids=lambda seed: f"seed-{seed}")
def result(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Return the result of a run; it raises for anything lost, left behind, late or noisy."""
    return run(tmp_path_factory.mktemp("cancellations"), count=COUNT, seed=request.param)


@pytest.mark.needs_thread
def test_nothing_is_lost_and_nothing_left_behind(result: Result) -> None:
    """The run was quiet, and conclusive: some writes were committed, and some were not."""
    assert result.cancellations >= COUNT
    assert min(result.acknowledged, result.rolled_back, result.unknown) > COUNT // 100


@pytest.mark.needs_thread
def test_connections_stay_open(result: Result) -> None:
    """A cancelled task returns its connection: caches stay warm, and statements stay prepared."""
    assert result.reopened <= 1 + result.cancellations // 100


@pytest.mark.needs_thread
def test_several_loops_at_the_same_time(tmp_path: Path) -> None:
    """Loops in threads of their own, on the same engines, keep the same promises."""
    result = run(tmp_path, count=COUNT, seed=3, others=OTHER_LOOPS)
    assert result.cancellations >= COUNT
    assert min(result.acknowledged, result.rolled_back, result.unknown) > COUNT // 100


@pytest.mark.needs_thread
def test_closed_while_several_loops_use_it(tmp_path: Path) -> None:
    """Acknowledged writes are there, refused ones are not, and no loop waits for ever."""
    result = run_closing(tmp_path, rounds=4, seed=4, others=OTHER_LOOPS)
    assert result.errors["DatabaseClosedError"] > 0
