"""What a server or its driver has refused, as a :class:`CopyError` that says what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, exc

from ...errors import CommitUnknownError, CopyError
from ...postgresql.sqlstate import leaves_commit_unknown, sqlstate_of
from ...turn.permit import shorten
from ..wire import is_drivers

INSUFFICIENT_PRIVILEGE = "42501"

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_ADVICE = {
    INSUFFICIENT_PRIVILEGE: "the role of the URL needs that right, which the owner of the database "
    "has: GRANT CREATE ON SCHEMA … TO …, or use a database of its own (createdb --owner)",
    "25006": "the server accepts no writes: use the URL of the primary",
    "25001": "leave postgresql_concurrently out of the models: a copy is one transaction",
    "3F000": "create the schema first: CREATE SCHEMA",
    "55P03": "another transaction uses these tables: end it, and copy again",
    "40P01": "another transaction uses these tables: end it, and copy again",
    "53100": "the disk of the server is full: free space there, and copy again",
}

_OF_THE_SYSTEM = (OSError, asyncio.TimeoutError)  # not an OSError before Python 3.11
_ARGUMENTS_OF_A_DRIVER = (TypeError, ValueError, OverflowError)


def refusal(error: Exception) -> str | None:
    """Return what a server or a driver says, and what to do; None for errors from elsewhere.

    This package's own errors come from its engines, and say what to do themselves.
    """
    if isinstance(error, (CommitUnknownError, exc.TimeoutError)):
        return None
    if not isinstance(error, exc.DBAPIError) and not is_drivers(error):
        return None
    advice = _ADVICE.get(sqlstate_of(error) or "")
    if "must be owner" in said(error):
        advice = "use the URL of that role, or change the owner (ALTER TABLE … OWNER TO …)"
    return said(error) if advice is None else f"{said(error)}; {advice}"


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Raise refusals in the block as :class:`CopyError`; ``what`` is a noun phrase."""
    try:
        yield
    except Exception as error:
        if (reason := refusal(error)) is None:
            raise
        raise CopyError(f"{what} failed, and nothing was copied: {reason}") from error


@contextmanager
def connecting(url: URL) -> Iterator[None]:
    """Raise an error in connecting to ``url`` as :class:`CopyError`, which says what to do."""
    try:
        yield
    except Exception as error:
        reason = refusal(error)
        if reason is None:
            if not isinstance(error, (*_OF_THE_SYSTEM, *_ARGUMENTS_OF_A_DRIVER)):
                raise
            reason = " ".join(str(error).split()) or type(error).__name__
        advice = _advice(url, error, reason)
        raise CopyError(
            f"connecting to {url!r} failed, and nothing was copied: {reason}; {advice}"
        ) from error


def _advice(url: URL, error: Exception, reason: str) -> str:
    low = reason.lower()
    for words, advice in _ADVICE_TO_CONNECT:
        if any(word in low for word in words):
            return advice.format(host=url.host, database=url.database)
    if isinstance(error, _ARGUMENTS_OF_A_DRIVER):
        return f"correct the URL: {url.get_driver_name()} does not accept what it contains"
    return "correct the URL, or find out why the server cannot be reached"


# Words from messages of operating systems, of libpq and of the server.
_ADVICE_TO_CONNECT: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        (
            *("name or service not known", "failed to resolve", "could not translate host"),
            *("nodename nor servname", "name resolution", "getaddrinfo", "no address associated"),
        ),
        "there is no host {host}: correct the URL; in a password, write %40 for @, %3A for : and "
        "%2F for /",
    ),
    (
        ("no such file",),
        "there is no socket of a server: is the server running, and is this its directory?",
    ),
    (
        ("connect call failed", "refused"),
        "nothing listens there: is the server running, and is this its port?",
    ),
    (("password", "authentication", "role "), "correct the user and the password in the URL"),
    (("does not exist",), "create it: createdb {database}"),
    (
        ("timeout", "timed out"),
        "the host does not respond: correct the URL, or check the firewall",
    ),
)


def is_unanswered(error: exc.DBAPIError) -> bool:
    """Return whether the connection was lost, or closed by the server, before an answer came."""
    return error.connection_invalidated or leaves_commit_unknown(sqlstate_of(error))


def drivers_error(error: BaseException) -> BaseException:
    """Return the driver's own error behind one of SQLAlchemy's, or the error itself."""
    found: BaseException = error
    if isinstance(error, exc.DBAPIError) and error.orig is not None:
        found = error.orig
    cause = found.__cause__  # asyncpg's is behind that of SQLAlchemy's adapter
    return cause if isinstance(cause, Exception) and is_drivers(cause) else found


def said(error: BaseException) -> str:
    """Return what the server says, in one line: the message, its detail, and its hint."""
    found: Any = drivers_error(error)
    diagnosis: Any = getattr(found, "diag", None)  # psycopg's
    parts: list[Any] = []
    if getattr(diagnosis, "message_primary", None):
        parts = [diagnosis.message_primary, diagnosis.message_detail, diagnosis.message_hint]
    elif getattr(found, "detail", None) or getattr(found, "hint", None):
        parts = [found.args[0], found.detail, found.hint]
    sentences = [" ".join(str(part).split()).rstrip(".") for part in parts if part]
    return ": ".join(sentences) or " ".join(str(found).split())


def place_in(error: BaseException) -> str:
    """Return the line of the statement that the server points to, or its first words."""
    sql = str(getattr(error, "statement", None) or "")
    found: Any = drivers_error(error)
    position = getattr(getattr(found, "diag", None), "statement_position", None)
    position = position or getattr(found, "position", None)
    if position is not None:
        at = int(position) - 1
        start, end = sql.rfind("\n", 0, at) + 1, sql.find("\n", at)
        return " ".join(sql[start : end if end >= 0 else None].split()).rstrip(",")
    return shorten(sql.partition("(")[0] if "CREATE TABLE" in sql else sql)
