"""The tokens of PostgreSQL's SQL.

https://www.postgresql.org/docs/current/sql-syntax-lexical.html. Strings are read as they are with
``standard_conforming_strings``, the default since 9.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_TOKEN = re.compile(
    r"""
      (?P<space>\s+ | --[^\n\r]*)
    | (?P<comment>/\*)
    | (?P<escaped>[eE]'(?:[^'\\] | \\. | '')*(?:'|\Z))
    | (?P<string>(?:[bBxXnN] | [uU]&)?'(?:[^'] | '')*(?:'|\Z))
    | (?P<dollar>\$(?:[^\W\d]\w*)?\$)
    | (?P<quoted>(?:[uU]&)?"(?:[^"] | "")*(?:"|\Z))
    | (?P<word>[^\W\d][\w$]*)
    | (?P<other>\d[\w.]* | .)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")


class Token(NamedTuple):
    """A token that is neither space nor comment.

    ``text`` of a word is in lower case, as PostgreSQL folds it; that of a quoted identifier is
    without its quotes; a string's is empty, whatever is in it.
    """

    kind: str
    text: str

    @property
    def names(self) -> bool:
        """Whether it may name something."""
        return self.kind in {"word", "quoted"}


def tokens(sql: str) -> Iterator[Token]:
    """Yield the tokens of ``sql``; what is not closed at its end reaches to the end."""
    position = 0
    while match := _TOKEN.match(sql, position):
        kind, position = str(match.lastgroup), match.end()
        if kind == "comment":
            position = _end_of_comment(sql, position)
        elif kind == "dollar":
            end = sql.find(match.group(), position)
            position = len(sql) if end < 0 else end + len(match.group())
            yield Token("string", "")
        elif kind in {"escaped", "string"}:
            yield Token("string", "")
        elif kind == "quoted":
            yield Token(kind, match.group().strip("uU&").strip('"').replace('""', '"'))
        elif kind != "space":
            yield Token(kind, match.group().lower())


def _end_of_comment(sql: str, position: int) -> int:
    """Return the end of a comment that begins before ``position``: comments nest."""
    depth = 1
    while depth:
        edge = _COMMENT_EDGE.search(sql, position)
        if edge is None:
            return len(sql)
        depth += 1 if edge.group() == "/*" else -1
        position = edge.end()
    return position
