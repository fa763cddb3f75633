"""The tokens of SQLite's SQL, at the beginning of a text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

LOOKED_AT = 16_384
"""How many characters of a text are examined, so that one of several megabytes causes no delay."""

# SQLite's own tokens (``sqlite3GetToken()`` in its tokenize.c): a byte order mark counts as space,
# and every non-ASCII character may be part of a name. An unclosed quote or comment extends to the
# end, because a long text is truncated.
_TOKEN = re.compile(
    r"""
      (?P<skip>[\s\ufeff]+ | --[^\n]* | /\*.*?(?:\*/|\Z) | ;)
    | (?P<quoted>'(?:[^']|'')*(?:'|\Z) | "(?:[^"]|"")*(?:"|\Z) | `(?:[^`]|``)*(?:`|\Z)
        | \[[^\]]*(?:\]|\Z))
    | (?P<word>[A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)

QUOTES = "\"'`[]"


def tokens(sql: str) -> Iterator[re.Match[str]]:
    """Return the tokens at the beginning of ``sql``, without space, comments and semicolons.

    The ``lastgroup`` of each is "quoted", "word" or "other".
    """
    found = _TOKEN.finditer(sql[:LOOKED_AT])
    return (token for token in found if token.lastgroup != "skip")


def words(sql: str) -> Iterator[str]:
    """Return the words of ``sql`` outside quotes and comments, in upper case."""
    return (word for word, _ in _words_and_depths(sql))


def top_level_words(sql: str) -> Iterator[str]:
    """Return the words of ``sql`` outside quotes, comments and parentheses, in upper case."""
    return (word for word, depth in _words_and_depths(sql) if depth == 0)


def called_functions(sql: str) -> Iterator[str]:
    """Yield the names in ``sql`` that precede a parenthesis, in lower case and without quotes."""
    before = ""
    for match in _TOKEN.finditer(sql):
        kind, found = match.lastgroup, match.group()
        if found == "(" and before:
            yield before
        if kind != "skip":
            is_name = kind == "word" or (kind == "quoted" and found[0] != "'")
            before = found.strip(QUOTES).lower() if is_name else ""


def first_word(sql: str) -> str:
    """Return the first word of ``sql``, in upper case; empty if there is none."""
    return next(words(sql[:LOOKED_AT]), "")


def _words_and_depths(sql: str) -> Iterator[tuple[str, int]]:
    depth = 0
    for match in _TOKEN.finditer(sql):
        if match.lastgroup == "word":
            yield match.group().upper(), depth
        elif match.group() == "(":
            depth += 1
        elif match.group() == ")":
            depth -= 1


def quoted(name: str) -> str:
    """Return ``name`` quoted, so that SQLite accepts it as an identifier, whatever it contains."""
    return '"' + name.replace('"', '""') + '"'


def unquoted(name: str) -> str:
    """Return the identifier that is written as ``name``, with quotes of any kind or none."""
    first = name[:1]
    if first == "[":
        return name[1:-1]
    return name[1:-1].replace(first * 2, first) if first in QUOTES else name


def shape(sql: str) -> str:
    """Return the whole text on one line, without comments: 'SAVEPOINT "";'.

    Words are in upper case; quoted names, and those that are not ASCII, are '""'. It is empty if
    SQLite may read the text otherwise than this module does, and for more than 10,000 tokens.
    """
    if _REFUSED_BY_DRIVER.search(sql):
        return ""
    sql = sql.removeprefix("\ufeff")
    found = ""
    for match in islice(_TOKEN.finditer(sql), _MOST_TOKENS):
        kind, part = match.lastgroup or "", match.group()
        if kind in _AS_SQLITE and not _AS_SQLITE[kind].fullmatch(part):
            return ""
        if kind == "quoted" or (kind == "word" and not part.isascii()):
            found += ' "" '
        elif kind == "skip" and part != ";":
            found += " "
        else:
            found += part.upper()
        if match.end() == len(sql):
            return " ".join(found.split()).replace(" ;", ";")
    return ""


_MOST_TOKENS = 10_000

# A NUL, and half a character.
_REFUSED_BY_DRIVER = re.compile("[\0\ud800-\udfff]")

# Tokens that SQLite reads in the same way: those of _TOKEN, but closed, and with its white space.
_AS_SQLITE = {
    "skip": re.compile(r"[ \t\n\f\r]+|--.*|/\*.+|;", re.DOTALL),
    "quoted": re.compile(
        r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\]""",
        re.VERBOSE | re.DOTALL,
    ),
}


def is_followed_by_another(sql: str) -> bool:
    """Return whether a second statement follows in ``sql``, which ``sqlite3`` refuses."""
    begun = ended = False
    for token in _TOKEN.finditer(sql[:LOOKED_AT]):
        if token.lastgroup != "skip":
            if ended:
                return True
            begun = True
        elif token.group() == ";":
            ended = begun
    return False


def without_leading_semicolons(sql: str) -> str:
    """Return ``sql`` for use after ``EXPLAIN``: SQLite skips semicolons only at the start."""
    first = next(tokens(sql), None)
    return sql if first is None else sql[first.start() :]
