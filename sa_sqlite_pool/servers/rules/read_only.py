"""Statements that do not write data, but would let a reader's transaction write after all.

Its BEGIN says READ ONLY, and the server refuses writes. Before the first query, SQL can still
change that, except on a server in recovery. The server itself refuses later attempts, in a function
or a DO block: "transaction read-write mode must be set before any query".
https://www.postgresql.org/docs/current/sql-set-transaction.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError

from ...errors import ForbiddenWriteError
from ...postgresql.sqlstate import READ_ONLY_TRANSACTION
from ...postgresql.statements import ends_transaction, head, statements
from ...postgresql.tokens import Token
from ...turn.permit import shorten
from ..drivers.choosing import driver_of
from ..pool import pool_of

# SQL text without any of these is harmless: most texts are not examined further.
_MAY_BE_ONE = re.compile(r"\bwrite\b|transaction_read_only|u&\"|;.*\S", re.IGNORECASE | re.DOTALL)

_PARAMETER = "transaction_read_only"
# How the server parses a boolean: "Unique prefixes of these strings are also accepted". There are
# more ways to write "off" than can be listed.
_ON = r"on|t(?:r(?:ue?)?)?|y(?:es?)?|1"
_IS_ON = re.compile(rf"(?:=|to)\s*(?:{_ON})")
_IS_ON_IN_QUOTES = re.compile(  # which tokens do not have
    rf"\s*set\s+(?:(?:local|session)\s+)?{_PARAMETER}\s*(?:=\s*|to\s+)'(?:{_ON})'\s*;?\s*",
    re.IGNORECASE,
)


def refuse_read_write(engine: Engine) -> None:
    """Refuse on a reader's ``engine`` any statement that would let a transaction write.

    An ``OperationalError`` whose ``orig`` is a :class:`~sa_sqlite_pool.ForbiddenWriteError` is
    raised before execution. A transaction that SQL text such as COMMIT has ended begins again.
    """
    driver = driver_of(engine.dialect)

    def executes(
        connection: Connection, _cursor: Any, sql: str, parameters: Any, *_more: object
    ) -> None:
        if makes_read_write(sql):
            raise _refused(connection, sql, parameters)
        adapted: Any = connection.connection.dbapi_connection
        if driver.in_transaction(adapted):
            driver.begin(adapted)

    # This comes first, so that no timers start for a statement that is refused.
    event.listen(engine, "before_cursor_execute", executes, insert=True)


def _refused(connection: Connection, sql: str, parameters: Any) -> OperationalError:
    pool = pool_of(connection.engine, connection.connection)
    forbidden = ForbiddenWriteError(
        f"a reader of {pool.name_of_server(connection)} cannot change a database, and stays READ "
        f"ONLY: {shorten(sql)}; use a writer session or the writer engine"
    )
    vars(forbidden)["sqlstate"] = READ_ONLY_TRANSACTION
    return OperationalError(sql, parameters, forbidden, hide_parameters=True)


@lru_cache(maxsize=1024)
def makes_read_write(sql: str) -> bool:
    """Return whether SQL text, or any statement in it, would let a READ ONLY transaction write.

    After one that ends the transaction, the rest of the text would execute without a transaction.
    """
    if _MAY_BE_ONE.search(sql) is None or _IS_ON_IN_QUOTES.fullmatch(sql) is not None:
        return False
    has_ended = False
    for statement in statements(sql):
        if has_ended or _tells_so(statement):
            return True
        has_ended = ends_transaction(head(statement)) and not _chains(statement)
    return False


def _chains(statement: Sequence[Token]) -> bool:
    """Return whether a statement also begins the next transaction, again READ ONLY."""
    words = [token.text for token in statement]
    return "chain" in words and "no" not in words


def _tells_so(statement: Sequence[Token]) -> bool:
    words = [token.text for token in statement]
    first = words[0]
    if first in {"begin", "start"}:  # in a transaction, the server warns, but obeys
        return _asks_to_write(words)
    if first not in {"set", "reset"}:
        return False
    # The server does not fold a quoted name, but finds a parameter by it whatever its case.
    rest = [word.lower() for word in words[1:]]
    if rest[:1] in (["local"], ["session"]) and rest[1:2] != ["characteristics"]:
        rest = rest[1:]
    if rest[:1] == ["transaction"]:
        return _asks_to_write(rest)
    if rest[:1] and rest[0].startswith('u&"'):  # its escapes may spell the parameter
        return True
    return rest[:1] == [_PARAMETER] and _IS_ON.fullmatch(" ".join(rest[1:])) is None


def _asks_to_write(words: Sequence[str]) -> bool:
    return any(pair == ("read", "write") for pair in pairwise(words))
