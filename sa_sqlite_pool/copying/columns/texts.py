"""Columns of texts, enums, identifiers, and bytes."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Collection, Iterable, Sequence
from typing import Any, final

from ...errors import a_type
from .base import NULL, Codec, Kind, Problem, all_escaped, escaped

_TYPE_NAMES = {int: "a number", float: "a number", bytes: "a blob", str: "a text"}


def wrong_type(value: object, wanted: str) -> Problem:
    """Return the problem of a value whose type differs from that of its column."""
    found = _TYPE_NAMES.get(type(value), a_type(value))
    return Problem(Kind.WRONG_TYPE, f"{found} in a column of {wanted}")


def unencodable(text: str) -> Problem | None:
    """Return why PostgreSQL cannot store the text, or None."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return Problem(Kind.UTF8, "the text is not valid UTF-8")
    if "\0" in text:
        return Problem(Kind.NUL, "PostgreSQL's texts cannot contain NUL")
    return None


class Text(Codec):
    """``TEXT``, and ``VARCHAR`` and ``CHAR`` of at most ``length`` characters."""

    def __init__(self, length: int | None = None, *, padded: bool = False) -> None:
        self._length = length
        self.has_forms = padded
        self.padded_to = length if padded else None

    def are_plain(self, values: Sequence[Any]) -> bool:
        return not self.has_forms

    def problem(self, value: Any) -> Problem | None:
        if not isinstance(value, str):
            return wrong_type(value, "texts")
        if (found := unencodable(value)) is not None:
            return found
        if self._length is not None and len(value) > self._length:
            return Problem(Kind.TOO_LONG, f"longer than {self._length} characters: {len(value):,}")
        return None

    def all_fit(self, values: Sequence[Any]) -> bool:
        if not set(map(type, values)) <= {str}:
            return False
        if self._length is not None and max(map(len, values), default=0) > self._length:
            return False
        return unencodable("".join(values)) is None

    def text(self, value: Any) -> str:
        return escaped(value)

    def texts(self, values: Sequence[Any]) -> Iterable[str]:
        return all_escaped(values)

    def forms(self, values: Sequence[Any]) -> Iterable[str]:
        if not self.has_forms:
            return self.texts(values)
        return all_escaped([None if value is None else value.rstrip(" ") for value in values])

    def expression(self, name: str) -> str:
        # "trailing spaces are removed when converting a character value to one of the other
        # string types"
        return f"{name}::text" if self.has_forms else name


@final
class Enum(Text):
    """``ENUM``, or a ``VARCHAR`` instead of one, with the names in ``known``."""

    def __init__(self, known: Collection[str]) -> None:
        super().__init__()
        self._known = frozenset(known)

    def problem(self, value: Any) -> Problem | None:
        if (found := super().problem(value)) is not None:
            return found
        if value not in self._known:
            return Problem(Kind.ENUM, f"not one of {', '.join(sorted(self._known))}")
        return None

    def all_fit(self, values: Sequence[Any]) -> bool:
        return super().all_fit(values) and set(values) <= self._known


@final
class Uuid(Codec):
    """``UUID``, which SQLAlchemy stores on SQLite as 32 hexadecimal digits."""

    def problem(self, value: Any) -> Problem | None:
        if isinstance(value, uuid.UUID):
            return None
        if type(value) is not str:
            return wrong_type(value, "UUIDs")
        try:
            uuid.UUID(value)
        except ValueError:
            return Problem(Kind.UNREADABLE, "not a UUID")
        return None

    def all_fit(self, values: Sequence[Any]) -> bool:
        return _are_digits(values) or super().all_fit(values)

    def are_plain(self, values: Sequence[Any]) -> bool:
        return not values or _are_digits(values)

    def text(self, value: Any) -> str:
        return str(value if isinstance(value, uuid.UUID) else uuid.UUID(value))

    def texts(self, values: Sequence[Any]) -> Iterable[str]:
        if not _are_digits(values):
            return super().texts(values)
        return [f"{v[:8]}-{v[8:12]}-{v[12:16]}-{v[16:20]}-{v[20:]}" for v in values]


@final
class UuidText(Text):
    """``CHAR(32)`` of a ``Uuid(native_uuid=False)``, whose text is copied unchanged."""

    def __init__(self) -> None:
        super().__init__(_DIGITS)

    def problem(self, value: Any) -> Problem | None:
        if (found := super().problem(value)) is not None:
            return found
        return Uuid().problem(value)  # a shorter one is invalid, and would be padded

    def all_fit(self, values: Sequence[Any]) -> bool:
        return _are_digits(values) or all(self.problem(value) is None for value in values)


def _are_digits(values: Sequence[Any]) -> bool:
    """Return whether the values are as SQLAlchemy writes UUIDs: 32 digits in lower case."""
    if set(map(type, values)) != {str} or set(map(len, values)) != {_DIGITS}:
        return False
    return _HEXADECIMAL.issuperset("".join(values))


_DIGITS = 32
_HEXADECIMAL = frozenset("0123456789abcdef")


@final
class Bytes(Codec):
    """``BYTEA``."""

    def problem(self, value: Any) -> Problem | None:
        return None if isinstance(value, (bytes, bytearray)) else wrong_type(value, "blobs")

    def all_fit(self, values: Sequence[Any]) -> bool:
        return set(map(type, values)) <= {bytes}

    def text(self, value: Any) -> str:
        return f"\\\\x{value.hex()}"


# Python's texts for these differ from PostgreSQL's.
_NO_TEXTS = (bytes, bytearray, memoryview, dict, set, frozenset, enum.Enum)


@final
class Other(Codec):
    """A PostgreSQL type that this package does not know: the server parses its text."""

    has_forms = True  # the server's text cannot be predicted: only NULLs are compared

    def __init__(self, name: str) -> None:
        self._name = name

    def forms(self, values: Sequence[Any]) -> Iterable[str]:
        return [NULL if value is None else "" for value in values]

    def expression(self, name: str) -> str:
        # For a composite type, IS NOT NULL tests every field.
        return f"CASE WHEN {name} IS DISTINCT FROM NULL THEN '' END"

    def problem(self, value: Any) -> Problem | None:
        if isinstance(value, str):
            return unencodable(value)
        if isinstance(value, (int, float)):
            return None
        if isinstance(value, (list, tuple)):
            return next(filter(None, map(self._item_problem, value)), None)
        # What a type of the application binds: an address, a range, a Decimal in an array.
        own: Any = type(value).__str__
        if isinstance(value, _NO_TEXTS) or own is object.__str__:
            return wrong_type(value, self._name)
        return unencodable(str(value))

    def _item_problem(self, item: Any) -> Problem | None:
        return None if item is None else self.problem(item)

    def text(self, value: Any) -> str:
        return escaped(self._array(value) if isinstance(value, (list, tuple)) else str(value))

    def _array(self, items: Any) -> str:
        # https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
        return f"{{{','.join(map(self._item, items))}}}"

    def _item(self, item: Any) -> str:
        if item is None:
            return "NULL"
        if isinstance(item, (list, tuple)):
            return self._array(item)
        if isinstance(item, (int, float)):
            return str(item)
        quoted = str(item).replace("\\", "\\\\").replace('"', '\\"')
        return f'"{quoted}"'
