"""Decide whether a statement only reads, for any database that SQLAlchemy supports.

A statement that is not clearly a read goes to the writer, which can execute every statement.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from sqlalchemy import ClauseElement, Sequence, StatementLambdaElement, TextClause, Values
from sqlalchemy.orm import FromStatement
from sqlalchemy.sql import visitors
from sqlalchemy.sql.functions import FunctionElement, next_value
from sqlalchemy.sql.selectable import HasPrefixes, HasSuffixes, SelectBase, TextualSelect

from ..postgresql.acting import fragment_acts, text_acts
from ..postgresql.functions import function_acts
from ..sqlite.statements import Kind, classify
from ..sqlite.tokens import called_functions, top_level_words, words

# Words that make a text that begins like a read something else: SELECT … FOR UPDATE, SELECT …
# INTO, and PostgreSQL's WITH x AS (INSERT …) SELECT ….
_LOCKING_WORDS = frozenset({"FOR", "INTO"})
_WRITING_WORDS = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE"})

# Functions that report the writes of their own connection, and return 0 on a reader:
# https://www.sqlite.org/lang_corefunc.html
_OF_WRITES = frozenset({"changes", "last_insert_rowid", "total_changes"})
_MAY_ASK_OF_WRITES = re.compile(rf"\b(?:{'|'.join(sorted(_OF_WRITES))})\b", re.IGNORECASE)


def only_reads(clause: Any, *, on_postgresql: bool = False) -> bool:
    """Return whether ``clause`` may run on a reader; False for None and for unknown clauses."""
    if isinstance(clause, StatementLambdaElement):
        clause = next(iter(clause.get_children()))  # what the lambda returns
    if isinstance(clause, FromStatement):
        clause = clause.element
    if isinstance(clause, TextualSelect):
        clause = clause.element
    if isinstance(clause, TextClause):
        return not text_acts(clause.text) if on_postgresql else text_only_reads(clause.text)
    if not isinstance(clause, (FunctionElement, SelectBase)):
        return False
    acts = _acts_on_postgresql if on_postgresql else _writes_or_locks
    return not any(map(acts, visitors.iterate(clause)))


def _writes_or_locks(element: Any) -> bool:
    if isinstance(element, TextClause):
        return _asks_of_writes(element.text)
    if getattr(element, "is_literal", False):  # literal_column()
        return _asks_of_writes(str(element.name))
    return (
        getattr(element, "is_dml", False)
        or getattr(element, "_for_update_arg", None) is not None
        or (isinstance(element, FunctionElement) and _name_of(element) in _OF_WRITES)
    )


def _asks_of_writes(sql: str) -> bool:
    """Return whether SQL text calls one of these functions outside quotes and comments."""
    may_ask = _MAY_ASK_OF_WRITES.search(sql) is not None
    return may_ask and not _OF_WRITES.isdisjoint(called_functions(sql))


def _acts_on_postgresql(element: Any) -> bool:
    if isinstance(element, TextClause):
        return fragment_acts(element.text)
    if getattr(element, "is_literal", False):  # literal_column()
        return fragment_acts(str(element.name))
    return (
        getattr(element, "is_dml", False)
        or getattr(element, "_for_update_arg", None) is not None
        or isinstance(element, (Sequence, next_value))
        or (isinstance(element, FunctionElement) and function_acts(_name_of(element)))
        or any(map(_acts_on_postgresql, _not_visited(element)))
    )


def _not_visited(element: Any) -> Iterator[Any]:
    """Yield the parts of ``element`` that ``visitors.iterate()`` does not visit."""
    if isinstance(element, HasPrefixes):
        yield from (text for text, _dialect in element._prefixes)
    if isinstance(element, HasSuffixes):
        yield from (text for text, _dialect in element._suffixes)
    for _dialect, hint in getattr(element, "_statement_hints", ()):
        yield TextClause(hint)
    if isinstance(element, Values):
        for value in (value for rows in element._data for row in rows for value in row):
            if isinstance(value, ClauseElement):
                yield from visitors.iterate(value)


def _name_of(function: FunctionElement[Any]) -> str:
    return str(getattr(function, "name", "")).lower()  # the application's own may have no name


# How many characters are examined at the beginning and at the end of a text. To examine all of a
# statement of several megabytes would block the event loop for a second.
_HEAD = 4096
_TAIL = 1024

_LOCKING_WORD = re.compile(rf"\b(?:{'|'.join(sorted(_LOCKING_WORDS))})\b", re.IGNORECASE)


def text_only_reads(sql: str) -> bool:
    """Return whether SQL text only reads; the time is bounded, however long the text is."""
    return _short_only_reads(sql) if len(sql) <= _HEAD else _long_only_reads(sql)


@lru_cache(maxsize=4096)
def _short_only_reads(sql: str) -> bool:
    if classify(sql) not in {Kind.READ, Kind.EXPLAIN}:
        return False
    if not _LOCKING_WORDS.isdisjoint(top_level_words(sql)):
        return False
    if _asks_of_writes(sql):
        return False
    return next(words(sql), "") != "WITH" or _WRITING_WORDS.isdisjoint(words(sql))


def _long_only_reads(sql: str) -> bool:
    # FOR UPDATE comes at the end, and INTO before FROM. So the head must include a FROM, and the
    # tail must contain neither word, not even in quotes. In a WITH, a write may be anywhere.
    head = sql[:_HEAD]
    seen = list(top_level_words(head))
    return (
        seen[:1] == ["SELECT"]
        and "FROM" in seen
        and _LOCKING_WORDS.isdisjoint(seen)
        and _LOCKING_WORD.search(sql, len(sql) - _TAIL) is None
    )
