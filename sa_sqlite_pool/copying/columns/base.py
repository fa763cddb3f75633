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
ESCAPES = (
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
    SCHEMA = "schema"


class Problem(NamedTuple):
    """Why one value does not fit."""

    kind: Kind
    why: str


READ_AS_NULL = Problem(Kind.NOT_NULL, "its type reads it as NULL, and the column is NOT NULL")
"""Of a value that is none for its type; no problem where the column takes NULL."""


class Codec(ABC):
    """The values of one column. ``NULL`` is no value: it is dealt with here alone.

    A value is what ``sqlite3`` returns, or what a type of the application makes of that.

    The server's text of a value may be another than the one that was sent. Then ``has_forms`` is
    True, and both sides are compared in a form of their own: :meth:`forms` and :meth:`expression`.
    """

    has_forms = False

    padded_to: int | None = None
    """The length that PostgreSQL fills shorter texts up to, with spaces; None for none."""

    def are_plain(self, values: Sequence[Any]) -> bool:
        """Return whether values without NULLs certainly differ there where they differ here."""
        return True

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

    def forms(self, values: Sequence[Any]) -> Iterable[str]:
        """Return the values of a batch as they are compared."""
        return self.texts(values)

    def expression(self, name: str) -> str:
        """Return the SQL for the quoted column ``name`` as it is compared."""
        return name

    read_form: Callable[[str], str] | None = None
    """Return the form of what :meth:`expression` gave; None if it is that already."""


def escaped(text: str) -> str:
    """Return a text as COPY takes it."""
    for character, escape in ESCAPES:
        text = text.replace(character, escape)
    return text


def all_escaped(values: Sequence[str | None]) -> Sequence[str]:
    """Return texts as COPY takes them; none of them has NUL."""
    joined = "\0".join([value or "" for value in values] if None in values else values)  # type: ignore[arg-type]
    texts: Sequence[str] = escaped(joined).split("\0")
    if None in values:
        return [NULL if value is None else text for value, text in zip(values, texts, strict=True)]
    return texts


def shown(value: Any) -> str:
    """Return what is shown of a value in a message."""
    if isinstance(value, (bytes, str)) and len(value) > _SHOWN:
        return f"{value[:_SHOWN]!r}… ({len(value):,} in all)"
    return repr(value)


_SHOWN = 60
