"""Decide whether a statement only reads, for any database that SQLAlchemy supports.

What is not clearly a read goes to the writer, which is right in any case.
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
from ..sqlite.statements import Kind, called_functions, classify, top_level_words, words

# Words with which a text that begins like a read is something else: SELECT … FOR UPDATE, SELECT …
# INTO, and PostgreSQL's WITH x AS (INSERT …) SELECT ….
_LOCKING_WORDS = frozenset({"FOR", "INTO"})
_WRITING_WORDS = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE"})

# Functions about the writes of their own connection (https://www.sqlite.org/lang_corefunc.html): on
# a reader they return 0.
_OF_WRITES = frozenset({"changes", "last_insert_rowid", "total_changes"})
_MAY_ASK_OF_WRITES = re.compile(rf"\b(?:{'|'.join(sorted(_OF_WRITES))})\b", re.IGNORECASE)


def only_reads(clause: Any, *, on_postgresql: bool = False) -> bool:
    """Return whether ``clause`` may go to a reader; False for None and for unknown clauses."""
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
    """Return whether SQL text calls one of these functions, not only in quotes or comments."""
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
    """Yield parts of ``element`` that ``visitors.iterate()`` passes by."""
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
    return str(getattr(function, "name", "")).lower()  # an application's may have none


# Characters at the beginning of a text, and at its end, that are examined. All of a statement of
# megabytes would take a second of the event loop.
_HEAD = 4096
_TAIL = 1024

_LOCKING_WORD = re.compile(rf"\b(?:{'|'.join(sorted(_LOCKING_WORDS))})\b", re.IGNORECASE)


def text_only_reads(sql: str) -> bool:
    """Return whether SQL text only reads, in bounded time however long it is."""
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
    # FOR UPDATE is at the end, INTO before FROM. So the head must reach to a FROM, and the tail
    # have neither, even in quotes. A member of a WITH may write wherever it is.
    head = sql[:_HEAD]
    seen = list(top_level_words(head))
    return (
        seen[:1] == ["SELECT"]
        and "FROM" in seen
        and _LOCKING_WORDS.isdisjoint(seen)
        and _LOCKING_WORD.search(sql, len(sql) - _TAIL) is None
    )
