"""The limit of one statement: it is set on the server, and the previous one is restored afterwards.

The previous limit is the connection's, or one that the application has set itself. It is queried,
since only the server knows whether a function of the application has set one. None of this uses
SQLAlchemy's ``Connection``: listeners that execute something would do so for this, too.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from ..drivers.answers import SECONDS_TO_ANSWER, AnswerLimit
from ..drivers.interface import row_of
from ..pool import ServerPool
from ..rules.levels import level_of

# In one query: OFFSET keeps the inner SELECT from being merged into the outer one, so it is
# evaluated first.
_CHANGE = (
    "SELECT before.value, set_config('statement_timeout', '{milliseconds}', {local}) "
    "FROM (SELECT current_setting('statement_timeout') AS value OFFSET 0) AS before"
)
_SHOW = "SHOW statement_timeout"


def tell(pool: ServerPool, adapted: Any, limit: float | None) -> str:
    """Set the limit of a statement on the server; return the previous one, as the server shows it.

    ``adapted`` is SQLAlchemy's adapted connection. The timers of the statement are running. The
    limit applies to the transaction, or without one to the connection, until
    :func:`tell_before`.
    """
    local = not adapted.autocommit
    milliseconds = 0 if limit is None else max(1, int(limit * 1000))
    # "You have to execute LOCK TABLE before executing any SELECT", which takes the snapshot:
    # https://www.postgresql.org/docs/current/sql-lock.html. With writes="in turn", the query for
    # the turn was a SELECT already, which does not matter under READ COMMITTED.
    if not pool.only_reads and local and level_of(adapted) == "SERIALIZABLE":
        before = row_of(adapted, _SHOW)[0]
        row_of(adapted, f"SET LOCAL statement_timeout = {milliseconds}")
    else:
        sql = _CHANGE.format(milliseconds=milliseconds, local=str(local).lower())
        before = row_of(adapted, sql)[0]
    return str(before)


def tell_before(pool: ServerPool, adapted: Any, limit: float | None, before: str) -> None:
    """Restore the limit that the server had before the statement, which has returned."""
    seconds = None if limit is None else limit + SECONDS_TO_ANSWER
    local = "" if adapted.autocommit else "LOCAL "
    with AnswerLimit(pool.driver, adapted, seconds):
        row_of(adapted, f"SET {local}statement_timeout = '{before}'")


def tell_after_error(
    pool: ServerPool,
    connection: Connection,
    adapted: Any,
    limit: float | None,
    before: str,
    error: Exception,
) -> None:
    """Call :func:`tell_before`, unless the end of the transaction or savepoint restores the limit.

    An error of the driver's own, for example for a parameter that it cannot encode, ends neither.
    """
    if pool.driver.is_broken(adapted):
        return
    if not adapted.autocommit and pool.driver.has_failed(adapted, error):
        return
    try:
        tell_before(pool, adapted, limit, before)
    except Exception as another:  # the statement's error is raised
        if not (connection.closed or connection.invalidated):
            connection.invalidate(another)
