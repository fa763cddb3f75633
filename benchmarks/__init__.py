"""What the engines of this package cost, beside SQLAlchemy's own: ``python -m benchmarks``."""
