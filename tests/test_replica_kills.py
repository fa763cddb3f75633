"""Replica connections of sessions are killed; ``python -m tests.replica_kills`` runs longer."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.postgresql import DRIVERS, Cluster, cluster
from tests.replica_kills.run import run

__all__ = ["cluster"]

COUNT = 60


@pytest.fixture
def database(cluster: Cluster) -> Iterator[str]:
    """Provide an empty database."""
    for driver in DRIVERS:
        pytest.importorskip(driver)
    cluster.primary.sql("CREATE DATABASE replica_kills")
    yield "replica_kills"
    cluster.primary.sql("DROP DATABASE replica_kills WITH (FORCE)")


# psycopg warns about streams that are left open, as it does for stock sessions.
@pytest.mark.filterwarnings("ignore:.*was deleted while still open")
def test_no_outcome_is_wrong(cluster: Cluster, database: str) -> None:
    """The run raises if a write fails; results that a session got are true on the primary."""
    result = run(cluster, database, count=COUNT, seed=1, on_progress=lambda _: None)
    gc.collect()
    print(result)  # noqa: T201 - for pytest -s
    assert (result.wrong, result.unknown) == (0, 0)
    assert result.kills >= COUNT
    assert min(result.committed, result.rolled_back, *result.by_way.values()) > COUNT // 10
