r"""What all columns share: values in batches, from SQLite's rows to the text format of COPY.

"COPY moves data between PostgreSQL tables and standard file-system files … When the text format is
used, the data to be written is a text file with one line per table row"
(https://www.postgresql.org/docs/current/sql-copy.html). Its escapes are those of the server
itself, so that a line which is read back equals the line that was sent.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

NULL = "\\N"

# "\b, \f, \n, \r, \t, \v" and the backslash: what the server escapes in its own output.
_ESCAPES = (
    ("\\", "\\\\"),
    *(("\b", "\\b"), ("\f", "\\f"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"), ("\v", "\\v")),
)


class Kind(enum.Enum):
    """Why a value does not fit; the names are those of ``--json`` and stay."""

    NUL = "nul"
    UTF8 = "utf-8"
    TOO_LONG = "too-long"
    WRONG_TYPE = "wrong-type"
    BOOLEAN = "boolean"
    RANGE = "range"
    PLACES = "places"
    PRECISION = "precision"
    ZONE = "zone"
    UNREADABLE = "unreadable"
    JSON = "json"
    JSON_NUL = "json-nul"
    ENUM = "enum"
    NOT_NULL = "null"
    ORPHAN = "orphan"
    DUPLICATE = "duplicate"


class Problem(NamedTuple):
    """Why one value does not fit."""

    kind: Kind
    why: str


class Codec(ABC):
    """The values of one column. ``NULL`` is no value: it is dealt with here alone.

    A value is what ``sqlite3`` returns, or what a type of the application makes of that.
    ``compared`` is False if the server's text cannot be foreseen: then only NULLs are compared.
    """

    compared = True

    @abstractmethod
    def problem(self, value: Any) -> Problem | None:
        """Return why the value does not fit, or None."""

    def all_fit(self, values: Sequence[Any]) -> bool:
        """Return whether the values certainly fit: a short cut, by calls of C functions."""
        return all(self.problem(value) is None for value in values)

    @abstractmethod
    def text(self, value: Any) -> str:
        """Return the value, which fits, as COPY takes it."""

    def texts(self, values: Sequence[Any]) -> Iterable[str]:
        """Return the values of a batch, which fit, as COPY takes them."""
        text = self.text
        return [NULL if value is None else text(value) for value in values]

    same: Callable[[str], str] | None = None
    """Return one text for all those of the same value; None if the server has one only."""

    def expression(self, name: str) -> str:
        """Return the SQL that reads the quoted column ``name`` back."""
        return name


def escaped(text: str) -> str:
    """Return a text as COPY takes it."""
    for character, escape in _ESCAPES:
        text = text.replace(character, escape)
    return text


def needs_escapes(text: str) -> bool:
    """Return whether :func:`escaped` changes the text."""
    return any(character in text for character, _ in _ESCAPES)


def comparable(codec: Codec, texts: Iterable[str]) -> Iterable[str]:
    """Return texts of a column in the form in which both sides have the same."""
    if not codec.compared:
        return [text if text == NULL else "" for text in texts]
    same = codec.same
    if same is None:
        return texts
    return [text if text == NULL else same(text) for text in texts]


def shown(value: Any) -> str:
    """Return what is shown of a value in a message."""
    if isinstance(value, (bytes, str)) and len(value) > _SHOWN:
        return f"{value[:_SHOWN]!r}… ({len(value):,} in all)"
    return repr(value)


_SHOWN = 60
