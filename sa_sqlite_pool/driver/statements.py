"""What a statement does, read from its text.

The text decides which way a statement goes first; SQLite's own authorizer (``guard.py``) has the
last word, so a misjudged statement is refused and goes the other way, and never does harm.
Everything that is not clearly a read counts as a write.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from functools import lru_cache


class Kind(enum.Enum):
    """What a statement needs before it may run."""

    READ = enum.auto()  # SELECT, VALUES, WITH … SELECT, a PRAGMA that asks for the schema
    EXPLAIN = enum.auto()  # compiles a statement, runs nothing
    WRITE = enum.auto()  # DML, DDL, and all that is unknown
    SAVEPOINT = enum.auto()  # opens a transaction where none is open
    BEGIN = enum.auto()  # BEGIN [DEFERRED]: takes no lock yet
    BEGIN_WRITE = enum.auto()  # BEGIN IMMEDIATE or EXCLUSIVE
    END = enum.auto()  # COMMIT, END, ROLLBACK, RELEASE, ROLLBACK TO
    SETTING = enum.auto()  # a PRAGMA that asks, or sets something of this connection; DETACH
    ATTACH = enum.auto()
    MAINTENANCE = enum.auto()  # changes the file and wants no transaction: VACUUM, some PRAGMAs

    __hash__ = object.__hash__  # by identity: enum.Enum's own is a function in Python

    # Whether a transaction is begun for it where none is open.
    opens_transaction: bool
    # Whether it needs the write turn, and is refused on a reader.
    writes: bool
    # Whether it may leave the connection other than it was: see changes_settings().
    may_change_settings: bool


for _kind in Kind:
    _kind.opens_transaction = _kind in {Kind.READ, Kind.EXPLAIN, Kind.WRITE, Kind.SAVEPOINT}
    _kind.writes = _kind in {Kind.WRITE, Kind.BEGIN_WRITE, Kind.MAINTENANCE}
    _kind.may_change_settings = _kind in {Kind.ATTACH, Kind.SETTING, Kind.MAINTENANCE}

# PRAGMAs that change the file (https://www.sqlite.org/pragma.html) if they are given a value,
_WRITING_PRAGMAS = frozenset({"application_id", "auto_vacuum", "schema_version", "user_version"})
# or with and without one.
_ALWAYS_WRITING_PRAGMAS = frozenset({"incremental_vacuum", "optimize", "wal_checkpoint"})

# PRAGMAs that ask for the schema, which a transaction may change: what create_all() finds missing,
# nobody must have created by the time it creates it.
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

# What a reader may set, beside asking: nothing outside its own connection.
_READER_SETTINGS = _SCHEMA_PRAGMAS | frozenset(
    {
        "analysis_limit",
        "automatic_index",
        "busy_timeout",
        "cache_size",
        "cache_spill",
        "case_sensitive_like",
        "cell_size_check",
        "foreign_key_check",
        "foreign_keys",
        "integrity_check",
        "journal_size_limit",
        "mmap_size",
        "quick_check",
        "read_uncommitted",
        "recursive_triggers",
        "reverse_unordered_selects",
        "secure_delete",
        "soft_heap_limit",
        "synchronous",
        "temp_store",
        "threads",
        "wal_autocheckpoint",
    }
)

_TOKEN = re.compile(
    r"""
      (?P<skip>\s+ | --[^\n]* | /\*.*?(?:\*/|\Z) | ;)
    | (?P<quoted>'(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\])
    | (?P<word>[A-Za-z_]\w*)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)


def words(sql: str) -> Iterator[str]:
    """The words of ``sql`` outside quotes and comments, in upper case."""
    return (word for word, _ in _words_and_depths(sql))


def top_level_words(sql: str) -> Iterator[str]:
    """Those of them that stand outside parentheses."""
    return (word for word, depth in _words_and_depths(sql) if depth == 0)


def _words_and_depths(sql: str) -> Iterator[tuple[str, int]]:
    depth = 0
    for match in _TOKEN.finditer(sql):
        if match.lastgroup == "word":
            yield match.group().upper(), depth
        elif match.group() == "(":
            depth += 1
        elif match.group() == ")":
            depth -= 1


_LONGEST_REMEMBERED = 4096  # characters; a long text is cheap to judge and dear to keep


def classify(sql: str) -> Kind:
    """What ``sql`` needs before it may run."""
    return _remembered(sql) if len(sql) <= _LONGEST_REMEMBERED else _classify(sql)


def _classify(sql: str) -> Kind:
    remaining = top_level_words(sql)
    first = next(remaining, "")
    if first in _BY_FIRST_WORD:
        return _BY_FIRST_WORD[first]
    if first == "WITH":
        return _main_verb(remaining)
    if first == "BEGIN":
        return Kind.BEGIN_WRITE if next(remaining, "") in {"IMMEDIATE", "EXCLUSIVE"} else Kind.BEGIN
    if first == "EXPLAIN":
        return _explain(sql, remaining)
    if first == "PRAGMA":
        return _pragma(sql)
    return Kind.WRITE


_remembered = lru_cache(maxsize=4096)(_classify)

_BY_FIRST_WORD = {
    "SELECT": Kind.READ,
    "VALUES": Kind.READ,
    "INSERT": Kind.WRITE,
    "UPDATE": Kind.WRITE,
    "DELETE": Kind.WRITE,
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
    # The members of a WITH stand in parentheses, so the first verb at the top is the statement's:
    # https://www.sqlite.org/lang_with.html
    for word in remaining:
        if word in {"SELECT", "VALUES"}:
            return Kind.READ
        if word in {"INSERT", "REPLACE", "UPDATE", "DELETE"}:
            return Kind.WRITE
    return Kind.WRITE


def _explain(sql: str, remaining: Iterator[str]) -> Kind:
    explained = next((word for word in remaining if word not in {"QUERY", "PLAN"}), "")
    # "Some pragmas run during the SQL compilation stage, not the execution stage. This means if
    # using EXPLAIN, the pragma may run": https://www.sqlite.org/pragma.html
    return _pragma(sql) if explained == "PRAGMA" else Kind.EXPLAIN


_PRAGMA = re.compile(
    r"""PRAGMA \s+ (?: [^\s.=(]+ \s* \. \s* )?
        ["'`\[]? (?P<name>\w+) ["'`\]]? \s* (?P<value>[=(])?""",
    re.VERBOSE | re.IGNORECASE,
)


def _pragma(sql: str) -> Kind:
    match = _PRAGMA.search(sql)
    if match is None:
        return Kind.MAINTENANCE
    if pragma_writes(match["name"], has_value=match["value"] is not None):
        return Kind.MAINTENANCE
    return Kind.READ if match["name"].lower() in _SCHEMA_PRAGMAS else Kind.SETTING


def pragma_writes(name: str, *, has_value: bool) -> bool:
    """Whether the PRAGMA changes the file and so needs the write turn.

    ``journal_mode`` does not count: SQLite changes it only while nobody else has the file open,
    and where the mode is already the one asked for, as it is here, nothing happens.
    """
    name = name.lower()
    return name in _ALWAYS_WRITING_PRAGMAS or (has_value and name in _WRITING_PRAGMAS)


def reader_may(pragma: str, value: str | None) -> bool:
    """Whether a reader may execute the PRAGMA: all that ask, and settings of its own."""
    pragma = pragma.lower()
    if pragma in _ALWAYS_WRITING_PRAGMAS:
        return False
    if pragma == "journal_mode" and value is not None:
        return value.lower() == "wal"  # what it is already; `connect` listeners often say so
    return value is None or pragma in _READER_SETTINGS


def ends_transaction(sql: str) -> bool:
    """Whether a statement of the kind ``END`` ends all, and not a SAVEPOINT alone."""
    found = list(words(sql))
    return found[0] != "RELEASE" and not (found[0] == "ROLLBACK" and "TO" in found)


@lru_cache(maxsize=4096)
def may_defer(sql: str) -> bool:
    """Whether foreign keys may be checked at COMMIT because of this statement."""
    return "DEFER" in sql.upper()  # DEFERRABLE INITIALLY DEFERRED, PRAGMA defer_foreign_keys


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


def changes_settings(sql: str) -> bool:
    """Whether the connection may be another one afterwards than it was when it was opened."""
    match = _PRAGMA.search(sql)
    if match is None:
        return next(words(sql), "") in {"ATTACH", "DETACH"}
    return match["value"] is not None and match["name"].lower() not in _QUESTIONS
