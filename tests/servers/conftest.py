"""The servers that these tests use."""

from __future__ import annotations

from tests.postgresql import app, cluster

__all__ = ["app", "cluster"]
