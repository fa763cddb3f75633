"""The servers that these tests use; the replicas look on."""

from __future__ import annotations

from tests.postgresql import app, cluster

__all__ = ["app", "cluster"]
