r"""What all columns share: values in batches, from SQLite's rows to the text format of COPY.

"COPY moves data between PostgreSQL tables and standard file-system files … When the text format is
used, the data to be written is a text file with one line per table row"
(https://www.postgresql.org/docs/current/sql-copy.html). The escapes are the ones that the server
itself writes, so that a line that is read back equals the line that was sent.
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
    """Why a value does not fit; the values appear in ``--json``, and must not change."""

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
"""The problem of a value that its type reads as None; not one if the column accepts NULL."""


class Codec(ABC):
    """The values of one column. ``NULL`` is not a value: only this class handles it.

    A value is what ``sqlite3`` returns, or what a type of the application converts that to.

    The server's text of a value may differ from the text that was sent. Then ``has_forms`` is True,
    and both sides are compared in a separate form: :meth:`forms` and :meth:`expression`.
    """

    has_forms = False

    padded_to: int | None = None
    """The length to which PostgreSQL pads shorter texts with spaces; None if it does not."""

    def are_plain(self, values: Sequence[Any]) -> bool:
        """Return whether values without NULLs that differ here certainly differ there, too."""
        return True

    @abstractmethod
    def problem(self, value: Any) -> Problem | None:
        """Return why the value does not fit, or None."""

    def all_fit(self, values: Sequence[Any]) -> bool:
        """Return whether the values certainly fit: a shortcut that calls C functions."""
        return all(self.problem(value) is None for value in values)

    @abstractmethod
    def text(self, value: Any) -> str:
        """Return the text of a value that fits, in the format of COPY."""

    def texts(self, values: Sequence[Any]) -> Iterable[str]:
        """Return the texts of a batch of values that fit, in the format of COPY."""
        text = self.text
        return [NULL if value is None else text(value) for value in values]

    def forms(self, values: Sequence[Any]) -> Iterable[str]:
        """Return the values of a batch in the form in which they are compared."""
        return self.texts(values)

    def expression(self, name: str) -> str:
        """Return SQL for the quoted column ``name`` in the form in which it is compared."""
        return name

    read_form: Callable[[str], str] | None = None
    """Return the form of a result of :meth:`expression`; None if that is the form already."""


def escaped(text: str) -> str:
    """Return a text in the format of COPY."""
    for character, escape in ESCAPES:
        text = text.replace(character, escape)
    return text


def all_escaped(values: Sequence[str | None]) -> Sequence[str]:
    """Return texts in the format of COPY; none of them contains NUL."""
    joined = "\0".join([value or "" for value in values] if None in values else values)  # type: ignore[arg-type]
    texts: Sequence[str] = escaped(joined).split("\0")
    if None in values:
        return [NULL if value is None else text for value, text in zip(values, texts, strict=True)]
    return texts


def shown(value: Any) -> str:
    """Return the text by which messages show a value."""
    if isinstance(value, (bytes, str)) and len(value) > _SHOWN:
        return f"{value[:_SHOWN]!r}… ({len(value):,} in all)"
    return repr(value)


_SHOWN = 60
