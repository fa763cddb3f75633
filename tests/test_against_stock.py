"""Random programs have equal outcomes on stock and here; ``make test-against-stock`` runs more."""

from __future__ import annotations

import pytest

from sa_sqlite_pool.driver.adapter import SQLiteConnection
from tests.against_stock.__main__ import KINDS, difference

SEEDS = range(12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_program(seed: int, kind: str) -> None:
    """Results, errors and the final content of the file are equal."""
    assert difference(seed, kind) is None


def test_a_fault_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback that commits is detected by one of these programs."""
    monkeypatch.setattr(SQLiteConnection, "rollback", SQLiteConnection.commit)
    assert any(difference(seed, "swap-in") for seed in SEEDS)
