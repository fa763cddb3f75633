"""Columns of dates, times and intervals."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, time, timedelta, timezone
from typing import Any, final

from sqlalchemy.engine import processors

from .base import NULL, Codec, Kind, Problem
from .texts import wrong_type

Parse = Callable[[Any], Any]

MICROSECONDS = 6
"""The decimal places of a second that PostgreSQL and Python support."""

_ZONES_END = timedelta(hours=16)


class Moment(Codec):
    """``DATE``, ``TIME`` and ``TIMESTAMP``: texts on SQLite, as SQLAlchemy writes them.

    ``parse`` reads such a text. With ``zoned``, the column has a time zone, and a value without one
    is taken as UTC: SQLAlchemy stores no zone on SQLite. Seconds have ``places`` decimal places.
    """

    def __init__(
        self,
        kind: type[date | time],
        parse: Parse | None,
        *,
        zoned: bool,
        places: int,
    ) -> None:
        self._kind = kind
        self._parse: Parse = parse or kind.fromisoformat
        self._zoned = zoned
        self._places = places
        self._is_standard = parse is processors.str_to_datetime

    def problem(self, value: Any) -> Problem | None:
        if not isinstance(value, (str, self._kind)):
            return wrong_type(value, f"{self._kind.__name__}s")
        try:
            moment = self._moment(value)
        except Exception:  # the application's parser may raise anything
            return Problem(Kind.UNREADABLE, f"not a {self._kind.__name__} that SQLAlchemy can read")
        if not self._zoned and getattr(moment, "tzinfo", None) is not None:
            return Problem(
                Kind.ZONE,
                "it has a time zone, and the column has none: use DateTime(timezone=True)",
            )
        if self._zoned and (found := _zone_problem(moment)) is not None:
            return found
        if getattr(moment, "microsecond", 0) % 10 ** (MICROSECONDS - self._places):
            return Problem(Kind.PLACES, f"more than {self._places} decimal places of a second")
        return None

    def all_fit(self, values: Sequence[Any]) -> bool:
        if self._places < MICROSECONDS or not set(map(type, values)) <= {str}:
            return super().all_fit(values)
        try:
            moments = list(map(self._parse, values))
        except Exception:  # this is reported for each value
            return False
        if self._kind is date:
            return True
        if {moment.tzinfo for moment in moments} <= {None}:
            return True
        return self._zoned and super().all_fit(values)

    def are_plain(self, values: Sequence[Any]) -> bool:
        if not values:
            return True
        if set(map(type, values)) != {str}:
            return False
        if self._kind is date:
            return set(map(len, values)) == {10} and {v[4] + v[7] for v in values} == {"--"}
        return self._is_standard and _are_standard(values)

    def texts(self, values: Sequence[Any]) -> Iterable[str]:
        if self._zoned or not self._is_standard or not _are_standard(values):
            return super().texts(values)
        return [v[:19] if v.endswith("000000") else v.rstrip("0") for v in values]

    def _moment(self, value: Any) -> Any:
        return self._parse(value) if isinstance(value, str) else value

    def text(self, value: Any) -> str:
        moment = self._moment(value)
        if not self._zoned:
            return _trimmed(str(moment))
        if moment.tzinfo is None:
            return f"{_trimmed(str(moment))}+00"
        if isinstance(moment, datetime):
            moment = moment.astimezone(timezone.utc).replace(tzinfo=None)
            return f"{_trimmed(str(moment))}+00"
        return _zoned_time(moment)


def _zone_problem(moment: datetime | time) -> Problem | None:
    try:
        offset = moment.utcoffset()
        if isinstance(moment, datetime) and offset is not None:  # without one it is UTC
            moment.astimezone(timezone.utc)
    except (OverflowError, ValueError):
        return Problem(Kind.RANGE, "in UTC, it is outside the years 1 to 9999 of Python")
    if isinstance(moment, time) and offset is not None and abs(offset) >= _ZONES_END:
        return Problem(Kind.RANGE, "PostgreSQL's time zone offsets end at 15:59:59")
    return None


def _are_standard(values: Sequence[Any]) -> bool:
    """Return whether all are as SQLAlchemy writes datetimes: ``2024-02-29 23:59:59.000000``."""
    if None in values or set(map(len, values)) != {26}:
        return False
    return {v[10] + v[19] for v in values} == {" ."} and "W" not in "".join(values)


def _trimmed(text: str) -> str:
    """Return a text without trailing zeros, which the server does not print."""
    return text.rstrip("0") if "." in text else text


def _zoned_time(moment: time) -> str:
    clock, sign, zone = str(moment).partition("+" if "+" in str(moment) else "-")
    return f"{_trimmed(clock)}{sign}{zone.removesuffix(':00')}"


@final
class Interval(Codec):
    """``INTERVAL``; values are ``timedelta`` objects. ``ddl`` may limit what is kept of them."""

    has_forms = True

    def __init__(self, ddl: str) -> None:
        self._name = ddl
        self._unit = _kept(ddl)

    def problem(self, value: Any) -> Problem | None:
        if not isinstance(value, timedelta):
            return wrong_type(value, "intervals")
        if value % self._unit:
            return Problem(Kind.PLACES, f"{self._name} cannot store all of it")
        return None

    def text(self, value: Any) -> str:
        return f"{value.days} days {value.seconds}.{value.microseconds:06d} seconds"

    def forms(self, values: Sequence[Any]) -> Iterable[str]:
        """Return microseconds: a day is 24 hours, as it is for the drivers."""
        return [NULL if value is None else str(value // _MICROSECOND) for value in values]

    def expression(self, name: str) -> str:
        return f"(extract(epoch FROM {name}) * 1000000)::bigint"


_MICROSECOND = timedelta(microseconds=1)

# "PostgreSQL … the interval type … can restrict the set of stored fields": anything smaller than
# the last of them is dropped. Days never become months there.
_UNITS = {
    "YEAR": timedelta.max,
    "MONTH": timedelta.max,
    "DAY": timedelta(days=1),
    "HOUR": timedelta(hours=1),
    "MINUTE": timedelta(minutes=1),
}


def _kept(ddl: str) -> timedelta:
    """Return the smallest interval that a PostgreSQL type keeps."""
    last = ddl.rpartition(" ")[2]
    smallest = timedelta(microseconds=10 ** (MICROSECONDS - places_of(ddl)))
    return _UNITS.get(last, smallest)


def places_of(ddl: str) -> int:
    """Return the decimal places of the seconds of a type, such as 3 for ``TIMESTAMP(3)``."""
    found = re.search(r"\((\d+)\)", ddl)
    return MICROSECONDS if found is None else min(int(found[1]), MICROSECONDS)
