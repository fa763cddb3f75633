"""SQLAlchemy's dialect compliance suite: the names below are its test classes."""

from sqlalchemy.testing.suite import *  # noqa: F403
