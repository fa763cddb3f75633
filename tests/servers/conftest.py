"""The sessions that these tests use, and replicas that lag."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgresql import App
from tests.servers.routed import routed, routed_database

__all__ = ["lag", "routed", "routed_database"]


@pytest.fixture
def lag(app: App) -> Iterator[None]:
    """Delay commits on the replicas by half a second."""
    for replica in app.cluster.replicas:
        replica.set(recovery_min_apply_delay="500ms")
    yield
    for replica in app.cluster.replicas:
        replica.set(recovery_min_apply_delay="0")
