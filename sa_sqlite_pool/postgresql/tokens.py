"""The tokens of PostgreSQL's SQL.

https://www.postgresql.org/docs/current/sql-syntax-lexical.html, and where that says nothing,
``src/backend/parser/scan.l``. Strings are read as with ``standard_conforming_strings``, the
default since 9.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

# PostgreSQL treats every character outside of ASCII as a letter: "\200-\377" of ident_start. So a
# space outside of ASCII is not a space.
_START = r"A-Za-z_\x80-\U0010FFFF"
_SPACE = r"\ \t\n\r\f\v"

_COMMENT_EDGE = re.compile(r"/\*|\*/")

# "String constants that are only separated by whitespace with at least one newline are
# concatenated", and the later ones are read like the first: with backslashes.
_BETWEEN = re.compile(rf"(?:[{_SPACE}]+|--[^\n\r]*)*")
_REST_OF_ESCAPED = re.compile(r"'[^'\\]*(?:(?:\\.|'')[^'\\]*)*(?:'|\\?\Z)", re.DOTALL)


@cache
def _token() -> re.Pattern[str]:
    # Compiled at first use, so never in programs that only use SQLite: it takes 8 ms.
    return re.compile(
        rf"""
          (?P<space>[{_SPACE}]+ | --[^\n\r]*)
        | (?P<comment>/\*)
        | (?P<escaped>[eE]'[^'\\]*(?:(?:\\. | '')[^'\\]*)*(?:'|\\?\Z))
        | (?P<string>(?:[bBxXnN] | [uU]&)?'[^']*(?:''[^']*)*(?:'|\Z))
        | (?P<dollar>\$(?:[{_START}][{_START}0-9]*)?\$)
        | (?P<unicode>[uU]&"[^"]*(?:""[^"]*)*(?:"|\Z))
        | (?P<quoted>"[^"]*(?:""[^"]*)*(?:"|\Z))
        | (?P<word>[{_START}][{_START}0-9$]*)
        | (?P<parameter>(?<![:\w\\]):\w+(?![:\w]))
        | (?P<some>[0-9.,=<>+*][0-9.,=<>+*{_SPACE}]*)
        | (?P<other>.)
        """,
        re.VERBOSE | re.DOTALL,
    )


class Token(NamedTuple):
    """A token that is neither space nor comment.

    The ``text`` of a word is in lower case, as PostgreSQL folds it; a quoted identifier's has no
    quotes; a string's is always empty. The kind ``unicode`` is an identifier with escapes,
    ``U&"d\\0061t"``, as written; ``parameter`` is a parameter of SQLAlchemy's, ``:name``; ``some``
    is a sequence of numbers and signs.
    """

    kind: str
    text: str

    @property
    def names(self) -> bool:
        """Whether the token may be a name, even after a colon: ``numbers[:size(numbers)]``."""
        return self.kind in {"word", "quoted", "parameter"}


_STRING = Token("string", "")


def tokens(sql: str) -> Iterator[Token]:
    """Yield the tokens of ``sql``; an unclosed one extends to the end."""
    position, token = 0, _token()
    while match := token.match(sql, position):
        kind, position = str(match.lastgroup), match.end()
        if kind == "word" or kind == "other":  # noqa: PLR1714 - the most
            yield Token(kind, match.group().lower())
        elif kind == "some":
            yield Token(kind, match.group().rstrip())
        elif kind == "comment":
            position = _end_of_comment(sql, position)
        elif kind == "dollar":
            end = sql.find(match.group(), position)
            position = len(sql) if end < 0 else end + len(match.group())
            yield _STRING
        elif kind == "escaped":
            position = _end_of_escaped(sql, position)
            yield _STRING
        elif kind == "string":
            yield _STRING
        elif kind == "quoted":
            yield Token(kind, match.group()[1:].removesuffix('"').replace('""', '"'))
        elif kind == "parameter":
            yield Token(kind, match.group()[1:].lower())
        elif kind == "unicode":
            yield Token(kind, match.group())


def _end_of_comment(sql: str, position: int) -> int:
    """Return the end of a comment that begins before ``position``; comments nest."""
    depth = 1
    while depth:
        edge = _COMMENT_EDGE.search(sql, position)
        if edge is None:
            return len(sql)
        depth += 1 if edge.group() == "/*" else -1
        position = edge.end()
    return position


def _end_of_escaped(sql: str, position: int) -> int:
    """Return the end of a string with backslashes, of which one part ends at ``position``."""
    while between := _BETWEEN.match(sql, position):
        more = _REST_OF_ESCAPED.match(sql, between.end())
        if more is None or not {"\n", "\r"} & set(between.group()):
            break
        position = more.end()
    return position
