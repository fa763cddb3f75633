"""The servers that these tests use."""

from __future__ import annotations

from tests.postgresql import app, cluster
from tests.servers.routed import routed, routed_database

__all__ = ["app", "cluster", "routed", "routed_database"]
