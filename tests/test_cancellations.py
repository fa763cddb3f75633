"""Clean cancellation under load; ``python -m tests.cancellations`` goes on for longer."""

from __future__ import annotations

import pytest

from tests.cancellations.run import Result, run

COUNT = 1_500


@pytest.fixture(scope="module", params=[1, 2], ids=lambda seed: f"seed-{seed}")
def result(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """One run; it raises for what is lost, left behind, late or noisy."""
    return run(tmp_path_factory.mktemp("cancellations"), count=COUNT, seed=request.param)


@pytest.mark.needs_thread
def test_nothing_is_lost_and_nothing_left_behind(result: Result) -> None:
    """The run was quiet, and did enough to say so: some writes were done, and some were not."""
    assert result.cancellations >= COUNT
    assert min(result.acknowledged, result.rolled_back, result.unknown) > COUNT // 100


@pytest.mark.needs_thread
def test_connections_stay_open(result: Result) -> None:
    """A cancelled task gives its connection back: caches stay warm, statements prepared."""
    assert result.reopened <= 1 + result.cancellations // 100
