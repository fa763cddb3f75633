"""The cost of this package's engines compared to SQLAlchemy's own: ``python -m benchmarks``."""
