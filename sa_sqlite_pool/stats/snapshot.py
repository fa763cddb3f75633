"""Snapshots of counters: the difference between two, and conversion to JSON."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import Field, field, fields, is_dataclass, replace
from typing import Any, TypeVar

S = TypeVar("S", bound="Snapshot")
T = TypeVar("T")

_COUNTER, _KEY = "counter", "key"


def counter(default: Any = 0) -> Any:
    """Declare a field that only grows: a number, or a tuple of numbers."""
    return field(default=default, metadata={_COUNTER: True})


def rows(key: str) -> Any:
    """Declare a tuple of snapshots, which a difference matches by their field ``key``."""
    return field(default=(), metadata={_KEY: key})


def find(found: Iterable[T], key: str, value: str) -> T:
    """Return the row whose field ``key`` is ``value``; raise ``KeyError`` if there is none."""
    for row in found:
        if getattr(row, key) == value:
            return row
    raise KeyError(value)


class Snapshot:
    """Base class of frozen dataclasses, whose difference is what happened between the two.

    ``later - earlier`` contains the differences of all counters, nested ones included, and the
    later value of everything else: what is open, which tasks wait, the longest of all waits.
    """

    __slots__ = ()

    def __sub__(self: S, earlier: S) -> S:
        if type(earlier) is not type(self):
            return NotImplemented
        changed = {
            one.name: _difference(one, getattr(self, one.name), getattr(earlier, one.name))
            for one in fields(self)  # type: ignore[arg-type]
        }
        return replace(self, **changed)  # type: ignore[type-var]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values: dictionaries, lists, strings, numbers, None."""
        found: dict[str, Any] = _plain(self)
        return found


def _difference(one: Field[Any], later: Any, earlier: Any) -> Any:
    if one.metadata.get(_COUNTER):
        if isinstance(later, tuple):
            return tuple(new - old for new, old in zip(later, earlier, strict=True))
        return later - earlier
    if isinstance(later, Snapshot) and type(earlier) is type(later):
        return later - earlier
    if (key := one.metadata.get(_KEY)) is not None:
        known = {getattr(row, key): row for row in earlier}
        return tuple(_row_since(row, known.get(getattr(row, key))) for row in later)
    return later


def _row_since(row: Any, earlier: Any) -> Any:
    """Return the change since ``earlier``; all of ``row`` if its counters were reset since then."""
    if earlier is None:
        return row
    done = row - earlier
    counters = (one.name for one in fields(done) if one.metadata.get(_COUNTER))
    return row if any(getattr(done, name) < 0 for name in counters) else done


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value) if one.repr}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value
