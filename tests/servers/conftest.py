"""The servers that these tests use."""

from __future__ import annotations

from tests.postgresql import app, cluster
from tests.servers.routed import routed

__all__ = ["app", "cluster", "routed"]
