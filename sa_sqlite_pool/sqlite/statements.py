"""Determine from the text of a statement what it does.

The text decides how a statement is executed at first; SQLite has the final say: a connection that
must not write is read-only, or its authorizer (``authorizer.py``) reports what it would write. Only
the beginning of a text is examined, so that a statement of several megabytes causes no delay.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from itertools import takewhile
from typing import NamedTuple

from .tokens import (
    LOOKED_AT,
    QUOTES,
    first_word,
    shape,
    tokens,
    top_level_words,
    unquoted,
    words,
)


class Kind(enum.Enum):
    """The kind of a statement: what it requires before it may run."""

    READ = enum.auto()  # SELECT, VALUES, WITH … SELECT, a PRAGMA that queries the schema
    EXPLAIN = enum.auto()  # compiles a statement without executing it
    WRITE = enum.auto()  # DML and DDL
    UPKEEP = enum.auto()  # ANALYZE, REINDEX: change no data, in a transaction or not
    UNKNOWN = enum.auto()  # no SQL verb in the first characters, so SQLite is asked
    TEMP_DML = enum.auto()  # changes only rows of temp tables, which belong to the connection
    TEMP_DDL = enum.auto()  # creates, changes or drops temp tables, indexes, views, triggers
    SAVEPOINT = enum.auto()  # begins a transaction if none is open
    BEGIN = enum.auto()  # BEGIN [DEFERRED]: takes no lock yet
    BEGIN_WRITE = enum.auto()  # BEGIN IMMEDIATE or EXCLUSIVE
    END = enum.auto()  # COMMIT, END, ROLLBACK, RELEASE, ROLLBACK TO
    PRAGMA = enum.auto()  # reads or sets something on this connection, in a transaction or not
    FLAG = enum.auto()  # a PRAGMA that only reads or sets an attribute of this connection
    SETTING = enum.auto()  # a PRAGMA that has no effect within a transaction; DETACH
    PRAGMA_WRITE = enum.auto()  # a PRAGMA that changes the file, in a transaction or not
    DEFERRAL = enum.auto()  # PRAGMA defer_foreign_keys with a value, valid for one transaction
    ATTACH = enum.auto()
    MAINTENANCE = enum.auto()  # changes the file outside a transaction: VACUUM, checkpoints

    __hash__ = object.__hash__  # by identity, in C: that of enum.Enum is a Python function

    # Whether a transaction is begun for it if none is open, on connections that read or write only
    # in transactions.
    opens_transaction: bool
    # Whether it requires the write turn.
    writes: bool
    # Whether it changes nothing but temp tables, indexes, views and triggers.
    is_temp: bool
    # Whether it may change settings of the connection: see changes_settings().
    may_change_settings: bool


for _kind in Kind:
    _kind.writes = _kind in {
        Kind.WRITE,
        Kind.UPKEEP,
        Kind.BEGIN_WRITE,
        Kind.PRAGMA_WRITE,
        Kind.DEFERRAL,
        Kind.MAINTENANCE,
    }
    _kind.is_temp = _kind in {Kind.TEMP_DML, Kind.TEMP_DDL}
    _kind.may_change_settings = _kind in {
        Kind.ATTACH,
        Kind.PRAGMA,
        Kind.FLAG,
        Kind.SETTING,
        Kind.PRAGMA_WRITE,
        Kind.MAINTENANCE,
    }
    _kind.opens_transaction = _kind not in {
        Kind.BEGIN,
        Kind.BEGIN_WRITE,
        Kind.END,
        Kind.FLAG,
        Kind.SETTING,
        Kind.ATTACH,
        Kind.MAINTENANCE,
    }

# PRAGMAs that change the file (https://www.sqlite.org/pragma.html) if they have a value,
_WRITING_PRAGMAS = frozenset(
    {"application_id", "default_cache_size", "schema_version", "user_version"}
)
# and PRAGMAs that change it with or without a value.
_ALWAYS_WRITING_PRAGMAS = frozenset({"incremental_vacuum", "optimize"})

# PRAGMAs that SQLite ignores or refuses within a transaction, or that do not depend on one:
# https://www.sqlite.org/pragma.html, and flagPragma and the code around it in SQLite's pragma.c.
_OUTSIDE_TRANSACTIONS = frozenset(
    {
        "auto_vacuum",
        "busy_timeout",
        "encoding",
        "foreign_keys",
        "journal_mode",
        "key",
        "locking_mode",
        "page_size",
        "query_only",  # once it is on, a transaction that writes could not begin
        "rekey",
        "synchronous",
        "temp_store",
        "temp_store_directory",
    }
)

# PRAGMAs that neither read the file nor depend on transactions. SQLAlchemy sets isolation levels
# with this one, even when a connection is returned, which must not wait for anything.
_FLAGS = frozenset({"read_uncommitted"})

# PRAGMAs that read the schema, within the transaction: if create_all() finds a table missing, no
# other connection may create it first.
_SCHEMA_PRAGMAS = frozenset(
    {
        "foreign_key_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "table_info",
        "table_list",
        "table_xinfo",
    }
)

_KIND_OF_PRAGMA = {
    **dict.fromkeys(_OUTSIDE_TRANSACTIONS, Kind.SETTING),
    **dict.fromkeys(_FLAGS, Kind.FLAG),
    **dict.fromkeys(_SCHEMA_PRAGMAS, Kind.READ),
}

LONGEST_REMEMBERED = 4096
"""The length of the longest text that tables keyed by text store, to bound their memory."""


def classify(sql: str) -> Kind:
    """Return what ``sql`` requires before it may run; the time is bounded."""
    sql = sql[:LOOKED_AT]
    remaining = top_level_words(sql)
    first = next(remaining, "")
    if first in _BY_FIRST_WORD:
        return _BY_FIRST_WORD[first]
    if first == "WITH":
        return _main_verb(remaining)
    if first == "EXPLAIN":
        return _explain(sql, remaining)
    if first == "PRAGMA":
        return _pragma(sql)
    otherwise = _OTHERWISE.get(first, Kind.UNKNOWN)
    return _BY_TWO_WORDS.get((first, next(remaining, "")), otherwise)


_BY_TWO_WORDS = {
    ("CREATE", "TEMP"): Kind.TEMP_DDL,
    ("CREATE", "TEMPORARY"): Kind.TEMP_DDL,
    ("BEGIN", "IMMEDIATE"): Kind.BEGIN_WRITE,
    ("BEGIN", "EXCLUSIVE"): Kind.BEGIN_WRITE,
}
_OTHERWISE = {"CREATE": Kind.WRITE, "BEGIN": Kind.BEGIN}
_BY_FIRST_WORD = {
    "SELECT": Kind.READ,
    "VALUES": Kind.READ,
    "INSERT": Kind.WRITE,
    "UPDATE": Kind.WRITE,
    "DELETE": Kind.WRITE,
    "REPLACE": Kind.WRITE,
    "DROP": Kind.WRITE,
    "ALTER": Kind.WRITE,
    "ANALYZE": Kind.UPKEEP,
    "REINDEX": Kind.UPKEEP,
    "SAVEPOINT": Kind.SAVEPOINT,
    "RELEASE": Kind.END,
    "COMMIT": Kind.END,
    "END": Kind.END,
    "ROLLBACK": Kind.END,
    "ATTACH": Kind.ATTACH,
    "DETACH": Kind.SETTING,
    "VACUUM": Kind.MAINTENANCE,
}


def _main_verb(remaining: Iterator[str]) -> Kind:
    # The members of a WITH are in parentheses, so the first verb outside parentheses is that of the
    # statement: https://www.sqlite.org/lang_with.html
    for word in remaining:
        if word in {"SELECT", "VALUES"}:
            return Kind.READ
        if word in {"INSERT", "REPLACE", "UPDATE", "DELETE"}:
            return Kind.WRITE
    return Kind.UNKNOWN


def _explain(sql: str, remaining: Iterator[str]) -> Kind:
    explained = next((word for word in remaining if word not in {"QUERY", "PLAN"}), "")
    # "Some pragmas run during the SQL compilation stage, not the execution stage. This means if
    # using EXPLAIN, the pragma may run": https://www.sqlite.org/pragma.html
    return _pragma(sql) if explained == "PRAGMA" else Kind.EXPLAIN


class Pragma(NamedTuple):
    """A PRAGMA statement, in lower case and without quotes; ``value`` is None if it has none."""

    name: str
    schema: str | None
    value: str | None


def parse_pragma(sql: str) -> Pragma | None:
    """Return the PRAGMA that ``sql`` executes or explains; None if ``sql`` is not a PRAGMA."""
    parts = (token.group().strip(QUOTES).lower() or "''" for token in tokens(sql))
    first = next(parts, "")
    if first == "explain":
        first = next((part for part in parts if part not in {"query", "plan"}), "")
    if first != "pragma":
        return None
    schema, name, then = None, next(parts, ""), next(parts, "")
    if then == ".":
        schema, name, then = name, next(parts, ""), next(parts, "")
    if then not in {"=", "("}:
        return Pragma(name, schema, None)
    value = takewhile(lambda part: part != ")", parts)
    return Pragma(name, schema, "".join(part for part in value if part != "+"))


def _pragma(sql: str) -> Kind:
    pragma = parse_pragma(sql)
    if pragma is None:
        return Kind.PRAGMA  # SQLite refuses it
    if pragma.name == "wal_checkpoint":
        return Kind.MAINTENANCE
    if pragma.name == "defer_foreign_keys" and pragma.value is not None:
        return Kind.DEFERRAL
    if pragma_writes(pragma.name, has_value=pragma.value is not None):
        return Kind.PRAGMA_WRITE
    return _KIND_OF_PRAGMA.get(pragma.name, Kind.PRAGMA)


def pragma_writes(name: str, *, has_value: bool) -> bool:
    """Return whether the PRAGMA changes the file and so needs the write turn.

    ``journal_mode`` does not count: most statements request the mode that is already set, which
    changes nothing. SQLite's authorizer reports a mode other than WAL.
    """
    name = name.lower()
    return name in _ALWAYS_WRITING_PRAGMAS or (has_value and name in _WRITING_PRAGMAS)


class Attach(NamedTuple):
    """An ATTACH statement: the expressions of its file and of its schema name, as written."""

    file: str
    name: str


def parse_attach(sql: str) -> Attach | None:
    """Return the parts of an ATTACH statement; None if it has further ones, such as a key.

    ``ATTACH [DATABASE] expr AS schema-name``: https://www.sqlite.org/lang_attach.html
    """
    found = list(tokens(sql))
    words = [token.group().upper() if token.lastgroup == "word" else "" for token in found]
    if words[:1] != ["ATTACH"] or "AS" not in words or "KEY" in words:
        return None
    begin = 2 if words[1] == "DATABASE" else 1
    last = len(words) - 1 - words[::-1].index("AS")
    file = sql[found[begin].start() : found[last].start()].strip()
    name = sql[found[last].end() : found[-1].end()].strip()
    return Attach(file, name) if last > begin and last < len(found) - 1 else None


def savepoint_name(sql: str) -> str:
    """Return the name in a SAVEPOINT, RELEASE or ROLLBACK TO, as SQLite compares it."""
    names = [token.group() for token in tokens(sql) if token.lastgroup in {"word", "quoted"}]
    return unquoted(names[-1]).lower()


def delimits(sql: str) -> bool:
    """Return whether ``sql`` surely is one statement that begins or ends a transaction for SQLite.

    Only then may another text, or none, be sent in its place; a false answer says nothing.
    """
    return _DELIMITS.fullmatch(shape(sql)) is not None


# Words that SQLite accepts neither as the name of a savepoint nor as the value of a PRAGMA: those
# of ``sqlite3_keyword_name()`` without a fallback to ID in its parse.y.
_RESERVED = (
    "ADD ALL ALTER AND AS AUTOINCREMENT BETWEEN CASE CHECK COLLATE COMMIT CONSTRAINT CREATE "
    "DEFERRABLE DISTINCT DROP ELSE ESCAPE EXCEPT EXISTS FOREIGN FROM GROUP HAVING IN INDEX INSERT "
    "INTERSECT INTO IS ISNULL JOIN LIMIT NOT NOTHING NOTNULL NULL OR ORDER PRIMARY REFERENCES "
    "RETURNING SELECT SET TABLE THEN TO TRANSACTION UNION UNIQUE UPDATE USING VALUES WHEN WHERE"
).replace(" ", "|")
_NAME = rf"(?!(?:{_RESERVED}|DEFAULT|DELETE|ON)\b)(?:\"\"|[A-Z_][A-Z0-9_$]*)"
_SAVEPOINT = rf"(?:SAVEPOINT\ {_NAME}|(?!SAVEPOINT\b){_NAME})"
_TRANSACTION = rf"(?:\ TRANSACTION(?:\ {_NAME})?)?"
_DELIMITS = re.compile(
    rf"""
    ;*\ ?
    (?: (?:BEGIN(?:\ (?:DEFERRED|IMMEDIATE|EXCLUSIVE))?|COMMIT|END|ROLLBACK){_TRANSACTION}
      | ROLLBACK{_TRANSACTION}\ TO\ {_SAVEPOINT}
      | RELEASE\ {_SAVEPOINT}
      | SAVEPOINT\ {_NAME}
    );?
    """,
    re.VERBOSE,
)


def is_plain_pragma(sql: str) -> bool:
    """Return whether SQLite surely accepts ``sql`` as a PRAGMA; a false answer says nothing.

    Only then may it be sent later, or another one in its place.
    """
    return _PLAIN_PRAGMA.fullmatch(shape(sql)) is not None


_VALUE = rf"(?:[-+]?\ ?(?:[0-9]+(?:\.[0-9]+)?|0X[0-9A-F]+)|ON|DEFAULT|DELETE|{_NAME})"
_PLAIN_PRAGMA = re.compile(
    rf";*\ ?PRAGMA\ (?:MAIN\ ?\.\ ?)?{_NAME}\ ?(?:=\ ?{_VALUE}|\(\ ?{_VALUE}\ ?\))?;?",
    re.VERBOSE,
)


def ends_transaction(sql: str) -> bool:
    """Return whether a statement of kind ``END`` ends the transaction, not only a SAVEPOINT."""
    found = list(words(sql[:LOOKED_AT]))
    return found[0] != "RELEASE" and not (found[0] == "ROLLBACK" and "TO" in found)


class Dropped(NamedTuple):
    """The table of a DROP TABLE, without quotes; if ``schema`` is None, SQLite searches for it."""

    schema: str | None
    table: str


def dropped_table(sql: str) -> Dropped | None:
    """Return the table that a DROP TABLE names; None if ``sql`` is not a DROP TABLE.

    ``DROP TABLE [IF EXISTS] [schema-name.]table-name``: https://www.sqlite.org/lang_droptable.html
    """
    if first_word(sql) != "DROP":
        return None
    found = list(tokens(sql))
    words = [token.group().upper() for token in found]
    names = found[4:] if words[2:4] == ["IF", "EXISTS"] else found[2:]
    if words[1:2] != ["TABLE"] or len(names) not in {1, 3}:
        return None
    parts = [unquoted(token.group()) for token in names]
    return Dropped(parts[0] if len(parts) > 1 else None, parts[-1])


def may_defer(sql: str) -> bool:
    """Return whether this statement may defer the check of foreign keys to COMMIT.

    DEFERRABLE INITIALLY DEFERRED in a DDL statement does so, and PRAGMA defer_foreign_keys.
    """
    return _DEFER.search(sql) is not None


_DEFER = re.compile("DEFER", re.IGNORECASE)

# PRAGMAs that take an argument and set nothing.
_QUESTIONS = _SCHEMA_PRAGMAS | frozenset(
    {
        "foreign_key_check",
        "incremental_vacuum",
        "integrity_check",
        "optimize",
        "quick_check",
        "wal_checkpoint",
    }
)


def pragma_asks(name: str) -> bool:
    """Return whether the PRAGMA takes an argument and sets nothing."""
    return name.lower() in _QUESTIONS


def changes_settings(sql: str) -> bool:
    """Return whether the statement may change the settings that the connection was opened with."""
    pragma = parse_pragma(sql)
    if pragma is None:
        return first_word(sql) in {"ATTACH", "DETACH"}
    return pragma.value is not None and pragma.name not in _QUESTIONS
