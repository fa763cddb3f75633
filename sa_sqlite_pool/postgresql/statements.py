"""SQL text, statement by statement, and which of them end a transaction or begin one.

https://www.postgresql.org/docs/current/sql-commands.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice

from .tokens import Token, tokens

_ENDS = frozenset({"abort", "commit", "end", "rollback"})
_BEGINS = frozenset({"begin", "start"})

# The most words that tell what such a statement is: ROLLBACK TRANSACTION TO SAVEPOINT.
_FEW = 4

_SEMICOLON = Token("other", ";")
_BEGIN = Token("word", "begin")

_LONGEST_REMEMBERED = 4096


def statements(sql: str) -> Iterator[Sequence[Token]]:
    """Yield the tokens of each statement; BEGIN ATOMIC … END, a function's body, is in its own."""
    found: list[Token] = []
    depth = 0  # of such a body
    for token in tokens(sql):
        if token == _SEMICOLON and not depth:
            if found:
                yield found
            found = []
            continue
        word = token.text if token.kind == "word" else ""
        if not depth:
            depth = int(word == "atomic" and found[-1:] == [_BEGIN])
        elif not found[-1].text.endswith("."):  # a column may have the name
            depth += (word == "case") - (word == "end")
        found.append(token)
    if found:
        yield found


def head(statement: Sequence[Token]) -> tuple[str, ...]:
    """Return the first words of a statement, in lower case; empty strings for other tokens."""
    return tuple(token.text if token.kind == "word" else "" for token in statement[:_FEW])


def first_head(sql: str) -> tuple[str, ...]:
    """Return the first words of a text. No more of it is read."""
    return _remembered(sql) if len(sql) <= _LONGEST_REMEMBERED else _first_head(sql)


def _first_head(sql: str) -> tuple[str, ...]:
    return head(tuple(islice(tokens(sql), _FEW)))


_remembered = lru_cache(maxsize=1024)(_first_head)


def ends_transaction(words: tuple[str, ...]) -> bool:
    """Return whether a statement with these first words ends the transaction; TO is a savepoint."""
    if words[:2] == ("prepare", "transaction"):
        return True
    return not _ENDS.isdisjoint(words[:1]) and "to" not in words


def begins_transaction(words: tuple[str, ...]) -> bool:
    """Return whether a statement with these first words begins a transaction."""
    return not _BEGINS.isdisjoint(words[:1])
