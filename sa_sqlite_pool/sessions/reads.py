"""Whether a statement only reads, for any database that SQLAlchemy knows.

What is not clearly a read goes to the writer, where it is right in any case.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import TextClause
from sqlalchemy.orm import FromStatement
from sqlalchemy.sql import visitors
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import SelectBase, TextualSelect

from ..driver.statements import Kind, classify, top_level_words, words

# In a text that begins like a read, these make it something else: SELECT … FOR UPDATE, SELECT …
# INTO, and PostgreSQL's WITH x AS (INSERT …) SELECT ….
_LOCKING_WORDS = frozenset({"FOR", "INTO"})
_WRITING_WORDS = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE"})


def only_reads(clause: Any) -> bool:
    """Whether ``clause`` may go to a reader. None, and what is unknown, may not."""
    if isinstance(clause, FromStatement):
        clause = clause.element
    if isinstance(clause, TextualSelect):
        clause = clause.element
    if isinstance(clause, TextClause):
        return text_only_reads(clause.text)
    if isinstance(clause, FunctionElement):
        return True
    return isinstance(clause, SelectBase) and not any(
        map(_writes_or_locks, visitors.iterate(clause))
    )


def _writes_or_locks(element: Any) -> bool:
    return (
        getattr(element, "is_dml", False) or getattr(element, "_for_update_arg", None) is not None
    )


def text_only_reads(sql: str) -> bool:
    """The same for SQL given as text."""
    if classify(sql) not in {Kind.READ, Kind.EXPLAIN}:
        return False
    if not _LOCKING_WORDS.isdisjoint(top_level_words(sql)):
        return False
    return next(words(sql), "") != "WITH" or _WRITING_WORDS.isdisjoint(words(sql))
