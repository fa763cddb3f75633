"""The sessions that these tests use."""

from __future__ import annotations

from tests.servers.routed import routed, routed_database

__all__ = ["routed", "routed_database"]
