"""The servers that these tests use; the replicas are idle."""

from __future__ import annotations

from tests.postgresql import app, cluster

__all__ = ["app", "cluster"]
