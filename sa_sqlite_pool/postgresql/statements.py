"""SQL text, split into statements, and which of them begin or end a transaction.

https://www.postgresql.org/docs/current/sql-commands.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice

from .tokens import Token, tokens

_ENDS = frozenset({"abort", "commit", "end", "rollback"})
_BEGINS = frozenset({"begin", "start"})
_KEEPS_SETTINGS = frozenset({"abort", "release", "rollback", "savepoint"})

# The number of words that identify such a statement, at most: ROLLBACK TRANSACTION TO SAVEPOINT.
_FEW = 4

_SEMICOLON = Token("other", ";")
_BEGIN = Token("word", "begin")

_LONGEST_REMEMBERED = 4096

# A long text without such a word needs no closer look.
_MAY_END_OR_BEGIN = re.compile(r"(?i)\b(?:abort|begin|commit|end|prepare|rollback|start)\b")


def statements(sql: str) -> Iterator[Sequence[Token]]:
    """Yield the tokens of each statement, including a function's body: BEGIN ATOMIC … END."""
    found: list[Token] = []
    depth = 0  # within such a body
    for token in tokens(sql):
        if token == _SEMICOLON and not depth:
            if found:
                yield found
            found = []
            continue
        word = token.text if token.kind == "word" else ""
        if not depth:
            depth = int(word == "atomic" and found[-1:] == [_BEGIN])
        elif found[-1].text not in {".", "as"}:  # it may be a column's name or label
            depth += (word == "case") - (word == "end")
        found.append(token)
    if found:
        yield found


def head(statement: Sequence[Token]) -> tuple[str, ...]:
    """Return the first words of a statement, in lower case; empty strings for other tokens."""
    return tuple(token.text if token.kind == "word" else "" for token in statement[:_FEW])


def first_head(sql: str) -> tuple[str, ...]:
    """Return the first words of SQL text, without reading the rest."""
    return _remembered(sql) if len(sql) <= _LONGEST_REMEMBERED else _first_head(sql)


def _first_head(sql: str) -> tuple[str, ...]:
    return head(tuple(islice(tokens(sql), _FEW)))


_remembered = lru_cache(maxsize=1024)(_first_head)


def boundaries(sql: str) -> Iterator[tuple[str, ...]]:
    """Yield the first words of each statement of SQL text, if any may begin or end a transaction.

    Drivers accept several statements in one text if it has no parameters.
    """
    if ";" not in sql:
        yield first_head(sql)
    elif _MAY_END_OR_BEGIN.search(sql) is not None:
        yield from map(head, statements(sql))


def ends_transaction(words: tuple[str, ...]) -> bool:
    """Return whether a statement with these first words ends the transaction, not a savepoint."""
    if words[:2] == ("prepare", "transaction"):
        return True
    return not _ENDS.isdisjoint(words[:1]) and "to" not in words


def begins_transaction(words: tuple[str, ...]) -> bool:
    """Return whether a statement with these first words begins a transaction."""
    return not _BEGINS.isdisjoint(words[:1])


def keeps_settings(words: tuple[str, ...]) -> bool:
    """Return whether a statement with these first words saves, keeps or restores settings.

    These are the savepoint statements, and ROLLBACK. They take no time.
    """
    return not _KEEPS_SETTINGS.isdisjoint(words[:1])
