"""The codes of PostgreSQL's errors.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError

ACTIVE_TRANSACTION = "25001"
READ_ONLY_TRANSACTION = "25006"
FAILED_TRANSACTION = "25P02"
SERIALIZATION_FAILURE = "40001"
DEADLOCK_DETECTED = "40P01"
LOCK_NOT_AVAILABLE = "55P03"
QUERY_CANCELED = "57014"

CONNECTION_ENDED = ("08", "57P")
"""Prefixes of the codes of connection errors, and of errors that end one: a server that stops."""

_COMPLETION_UNKNOWN = "40003"


def leaves_commit_unknown(state: str | None) -> bool:
    """Return whether an error of COMMIT with this code says nothing about its outcome.

    A server that stops, or is stopped, also sends it from a backend that has committed and waits
    for a synchronous replica. Without a code, there was no answer.
    """
    return not state or state.startswith((*CONNECTION_ENDED, _COMPLETION_UNKNOWN))


def sqlstate_of(error: BaseException | None) -> str | None:
    """Return the code of a driver's error, or of SQLAlchemy's error around it; None if none."""
    if isinstance(error, DBAPIError):
        error = error.orig
    state = getattr(error, "sqlstate", None)
    return None if state is None else str(state)
