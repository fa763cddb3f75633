"""PostgreSQL servers on this machine, for demos and tests: a primary, and replicas of it."""

from .server import PostgreSQL, PostgreSQLError, create_primary, create_replica
from .software import missing

__all__ = ["PostgreSQL", "PostgreSQLError", "create_primary", "create_replica", "missing"]
