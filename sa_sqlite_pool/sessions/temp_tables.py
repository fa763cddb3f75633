"""Recognize statements that create, fill or drop temp tables.

"Tables created using the "CREATE TEMP TABLE" syntax are only visible to the database connection in
which the "CREATE TABLE" statement was originally evaluated":
https://www.sqlite.org/inmemorydb.html. So an auto session uses a temp table where it was created.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Dialect, StatementLambdaElement, TextClause
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import FromStatement
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql import visitors
from sqlalchemy.sql.dml import Delete, Insert, Update
from sqlalchemy.sql.selectable import TableClause, TextualSelect

_LONGEST_READ = 4096  # characters: a statement names its target within them

_TOKEN = re.compile(
    r"""
      (?P<skip>\s+ | --[^\n]* | /\*.*?(?:\*/|\Z))
    | (?P<quoted>'(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\])
    | (?P<word>\w+)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)

_MAIN_VERBS = frozenset({"INSERT", "REPLACE", "UPDATE", "DELETE"})
_OBJECTS = frozenset({"TABLE", "VIEW", "TRIGGER", "INDEX"})
_BEFORE_OBJECT = frozenset({"UNIQUE", "VIRTUAL"})


class Target(NamedTuple):
    """The object that a statement creates, changes or drops. Names are in lower case.

    ``temporary`` is set if the statement itself says TEMP. ``table`` is the table of an index or
    a trigger; ``new_name`` is the new name of a table that the statement renames.
    """

    verb: str
    name: str
    temporary: bool
    table: str | None = None
    new_name: str | None = None

    def is_among(self, names: Collection[str]) -> bool:
        """Return whether the target is temp: the statement says so, or ``names`` include it.

        An object created without ``TEMP`` is temp only as an index or trigger of such a table.
        """
        named = self.verb != "CREATE" and self.name in names
        return self.temporary or named or self.table in names

    def apply_to(self, names: set[str]) -> None:
        """Update ``names``, the set of temp tables and other temp objects, for the statement."""
        if self.verb == "DROP" or self.new_name is not None:
            names.discard(self.name)
        if self.verb == "CREATE":
            names.add(self.name)
        if self.new_name is not None:
            names.add(self.new_name)


def _within(clause: Any) -> Any:
    """Return the statement that a lambda returns or that another statement wraps."""
    if isinstance(clause, StatementLambdaElement):
        clause = next(iter(clause.get_children()))
    return clause.element if isinstance(clause, (FromStatement, TextualSelect)) else clause


def target_of(clause: Any, dialect: Dialect) -> Target | None:
    """Return the target of a statement; None if it has none or cannot be parsed."""
    clause = _within(clause)
    if isinstance(clause, TextClause):
        return target_of_text(clause.text[:_LONGEST_READ])
    if isinstance(clause, (Insert, Update, Delete)):
        return _target_of_dml(clause)
    if isinstance(clause, ExecutableDDLElement):
        try:
            sql = str(clause.compile(dialect=dialect))
        except SQLAlchemyError:  # executing it raises the error again
            return None
        return target_of_text(sql[:_LONGEST_READ])
    return None


def _target_of_dml(clause: Insert | Update | Delete) -> Target | None:
    table = clause.table
    if not isinstance(table, TableClause):
        return None
    schema = (table.schema or "").lower()
    if schema not in {"", "temp"}:
        return None
    return Target(clause.__visit_name__.upper(), table.name.lower(), schema == "temp")


@lru_cache(maxsize=512)
def target_of_text(sql: str) -> Target | None:
    """Return the target of SQL text."""
    tokens = _Tokens(sql)
    verb = tokens.next_word()
    if verb == "WITH":
        verb = tokens.skip_to(_MAIN_VERBS)
    if verb == "CREATE":
        return _created(tokens)
    if verb in {"DROP", "ALTER"}:
        return _dropped_or_altered(verb, tokens)
    if verb in {"ANALYZE", "REINDEX"}:
        return _analyzed(verb, tokens)
    return _changed(verb, tokens) if verb in _MAIN_VERBS else None


def _dropped_or_altered(verb: str, tokens: _Tokens) -> Target | None:
    target = _named(verb, tokens) if tokens.next_word() in _OBJECTS else None
    if target is None or (tokens.next_word(), tokens.next_word()) != ("RENAME", "TO"):
        return target
    return target._replace(new_name=(tokens.next_name() or "").lower())


def _analyzed(verb: str, tokens: _Tokens) -> Target | None:
    """Return the target of ANALYZE or REINDEX, which may also name a schema."""
    target = _named(verb, tokens)
    if target is not None and target.name == "temp":
        return target._replace(temporary=True)
    return target


def _created(tokens: _Tokens) -> Target | None:
    word = tokens.next_word()
    temporary = word in {"TEMP", "TEMPORARY"}
    if temporary:
        word = tokens.next_word()
    if word in _BEFORE_OBJECT:
        word = tokens.next_word()
    if word not in _OBJECTS:
        return None
    target = _named("CREATE", tokens)
    if target is None:
        return None
    temporary = temporary or target.temporary
    on = None
    if word in {"INDEX", "TRIGGER"} and tokens.skip_to({"ON"}):
        on = _named("CREATE", tokens)
    if on is None:
        return target._replace(temporary=temporary)
    return target._replace(temporary=temporary or on.temporary, table=on.name)


def _changed(verb: str, tokens: _Tokens) -> Target | None:
    if tokens.peek_word() == "OR":  # INSERT OR IGNORE INTO
        tokens.next_word()
        tokens.next_word()
    if verb != "UPDATE" and tokens.next_word() not in {"INTO", "FROM"}:
        return None
    return _named(verb, tokens)


def _named(verb: str, tokens: _Tokens) -> Target | None:
    for word in ("IF", "NOT", "EXISTS"):
        if tokens.peek_word() == word:
            tokens.next_word()
    name, schema = tokens.next_name(), ""
    if tokens.peek() == ".":
        tokens.take()
        schema, name = (name or "").lower(), tokens.next_name()
    if name is None or schema not in {"", "temp"}:
        return None
    return Target(verb, name.lower(), schema == "temp")


class _Tokens:
    """The words, names and symbols of a text outside parentheses and comments."""

    def __init__(self, sql: str) -> None:
        self._tokens = _top_level(sql)
        self._ahead: tuple[str, str] | None = None

    def peek(self) -> str:
        """Return the next token without consuming it; "" at the end."""
        if self._ahead is None:
            self._ahead = next(self._tokens, ("", ""))
        return self._ahead[1]

    def take(self) -> tuple[str, str]:
        self.peek()
        token, self._ahead = self._ahead, None
        assert token is not None
        return token

    def peek_word(self) -> str:
        return self.peek().upper()

    def next_word(self) -> str:
        """Consume the next token and return it in upper case; "" if it is not a word."""
        kind, token = self.take()
        return token.upper() if kind == "word" else ""

    def next_name(self) -> str | None:
        kind, token = self.take()
        if kind == "word":
            return token
        if kind == "quoted":
            return token[1:-1].replace(token[-1] * 2, token[-1])
        return None

    def skip_to(self, words: Collection[str]) -> str:
        while self.peek():
            if (word := self.next_word()) in words:
                return word
        return ""


def _top_level(sql: str) -> Iterator[tuple[str, str]]:
    depth = 0
    for match in _TOKEN.finditer(sql):
        found = match.group()
        if found == ")":
            depth -= 1
        if depth == 0 and match.lastgroup != "skip" and found not in {")", ";"}:
            yield str(match.lastgroup), found
        if found == "(":
            depth += 1


def mentioned(clause: Any, names: Collection[str]) -> str | None:
    """Return one of ``names`` that occurs in a statement, as far as can be determined, or None."""
    return next((name for name in _names_in(clause) if name in names), None)


def _names_in(clause: Any) -> Iterator[str]:
    clause = _within(clause)
    if isinstance(clause, TextClause):
        yield from _tables_in(clause.text[:_LONGEST_READ])
    elif clause is not None:
        for element in visitors.iterate(clause):
            if isinstance(element, TableClause) and (element.schema or "temp") == "temp":
                yield element.name.lower()


def _tables_in(sql: str) -> Iterator[str]:
    """Yield the words that may name a table: all words if the text is neither DML nor a query."""
    named = first = None
    for match in _TOKEN.finditer(_OF_MAIN.sub("", sql)):
        kind, found = match.lastgroup, match.group()
        word = found.upper() if kind == "word" else ""
        if first is None:
            first = word or None
            named = first not in _DML_AND_QUERIES
        if word in _BEFORE_TABLES:
            named = True
        elif first in _DML_AND_QUERIES and (word in _AFTER_TABLES or found == "("):
            named = False
        elif named and kind in {"word", "quoted"}:
            yield found.strip("\"'`[]").lower()


_DML_AND_QUERIES = _MAIN_VERBS | {"SELECT", "VALUES", "WITH"}
_OF_MAIN = re.compile(r"\bmain\s*\.\s*\S+", re.IGNORECASE)
_BEFORE_TABLES = frozenset({"FROM", "JOIN", "INTO", "UPDATE", "IN"})
_AFTER_TABLES = frozenset(
    {
        *("GROUP", "HAVING", "LIMIT", "ON", "ORDER", "RETURNING", "SELECT", "SET", "UNION"),
        *("USING", "VALUES", "WHERE", "WINDOW"),
    }
)
