"""The codes of PostgreSQL's errors.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError

ACTIVE_TRANSACTION = "25001"
READ_ONLY_TRANSACTION = "25006"
SERIALIZATION_FAILURE = "40001"
DEADLOCK_DETECTED = "40P01"
LOCK_NOT_AVAILABLE = "55P03"
QUERY_CANCELED = "57014"


def sqlstate_of(error: BaseException | None) -> str | None:
    """Return the code of an error of a driver, or of SQLAlchemy's error around it; None if none."""
    if isinstance(error, DBAPIError):
        error = error.orig
    state = getattr(error, "sqlstate", None)
    return None if state is None else str(state)
