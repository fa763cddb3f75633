"""Random programs have equal outcomes on stock and here; ``make test-against-stock`` runs more."""

from __future__ import annotations

import pytest

from sa_sqlite_pool.driver.adapter import SQLiteConnection
from tests.against_stock.comparing import FAMILIES, KINDS, difference

SEEDS = range(12)
PROGRAMS = [
    (seed, family) for family in FAMILIES for seed in (SEEDS if family == "plain" else range(4))
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("seed", "family"), PROGRAMS)
def test_a_program(seed: int, kind: str, family: str) -> None:
    """Results, errors, events, warnings and the final content of the file are equal."""
    assert difference(seed, kind, family) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fault_is_found(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback that commits is detected by one of these programs."""
    monkeypatch.setattr(SQLiteConnection, "rollback", SQLiteConnection.commit)
    assert any(difference(seed, "swap-in", family) for seed in SEEDS)
