"""Columns of dates, times, and spans between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, time, timedelta, timezone
from typing import Any, final

from sqlalchemy.engine import processors

from .base import NULL, Codec, Kind, Problem
from .texts import wrong_type

Parse = Callable[[Any], Any]


class Moment(Codec):
    """``DATE``, ``TIME`` and ``TIMESTAMP``: texts on SQLite, as SQLAlchemy writes them.

    ``parse`` reads such a text. With ``zoned`` the column has a time zone, and what has none is
    taken as UTC: SQLAlchemy stores no zone on SQLite.
    """

    def __init__(self, kind: type[date | time], parse: Parse | None, *, zoned: bool) -> None:
        self._kind = kind
        self._parse: Parse = parse or kind.fromisoformat
        self._zoned = zoned
        self._is_standard = parse is processors.str_to_datetime

    def problem(self, value: Any) -> Problem | None:
        if not isinstance(value, (str, self._kind)):
            return wrong_type(value, f"{self._kind.__name__}s")
        try:
            moment = self._moment(value)
        except Exception:  # a parser of the application's may raise anything
            return Problem(Kind.UNREADABLE, f"not a {self._kind.__name__} that SQLAlchemy reads")
        if not self._zoned and getattr(moment, "tzinfo", None) is not None:
            return Problem(
                Kind.ZONE, "it has a time zone, and the column has none; DateTime(timezone=True)"
            )
        return None

    def all_fit(self, values: Sequence[Any]) -> bool:
        if not set(map(type, values)) <= {str}:
            return super().all_fit(values)
        try:
            moments = list(map(self._parse, values))
        except Exception:  # it is said for each value
            return False
        if self._zoned or self._kind is date:
            return True
        return {moment.tzinfo for moment in moments} <= {None}

    varies = True

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


def _are_standard(values: Sequence[Any]) -> bool:
    """Return whether all are as SQLAlchemy writes moments: ``2024-02-29 23:59:59.000000``."""
    if None in values or set(map(len, values)) != {26}:
        return False
    return {v[10] + v[19] for v in values} == {" ."} and "W" not in "".join(values)


def _trimmed(text: str) -> str:
    """Return a text without the zeros at its end, which the server does not print."""
    return text.rstrip("0") if "." in text else text


def _zoned_time(moment: time) -> str:
    clock, sign, zone = str(moment).partition("+" if "+" in str(moment) else "-")
    return f"{_trimmed(clock)}{sign}{zone.removesuffix(':00')}"


@final
class Interval(Codec):
    """``INTERVAL``; values are of ``timedelta``."""

    has_forms = True

    def problem(self, value: Any) -> Problem | None:
        return None if isinstance(value, timedelta) else wrong_type(value, "intervals")

    def text(self, value: Any) -> str:
        return f"{value.days} days {value.seconds}.{value.microseconds:06d} seconds"

    def forms(self, values: Sequence[Any]) -> Iterable[str]:
        """Return microseconds: a day is 24 hours, as it is for the drivers."""
        return [NULL if value is None else str(value // _MICROSECOND) for value in values]

    def expression(self, name: str) -> str:
        return f"(extract(epoch FROM {name}) * 1000000)::bigint"


_MICROSECOND = timedelta(microseconds=1)
