"""Columns of numbers."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, final

from .base import NULL, Codec, Kind, Problem
from .texts import wrong_type

_EXACT = 2**53  # up to here, a double can represent every integer
# Beyond the scale: 0.1 + 0.2 - 0.3 is 5.5e-17.
_NOISE_PLACES = 10
_DIGITS_END = 1e15  # a double has fifteen digits
_REAL = struct.Struct("f")
_SENT_REAL, _SENT_DOUBLE = struct.Struct(">f"), struct.Struct(">d")
_REAL_END = 3e38


@final
class Integer(Codec):
    """``SMALLINT``, ``INTEGER`` or ``BIGINT``, by the number of ``bits``."""

    def __init__(self, bits: int) -> None:
        self._high = 2 ** (bits - 1) - 1
        self._name = {16: "SMALLINT", 32: "INTEGER", 64: "BIGINT"}[bits]
        self._wider = {16: "Integer", 32: "BigInteger", 64: "Numeric"}[bits]

    def problem(self, value: Any) -> Problem | None:
        if not isinstance(value, int):
            return wrong_type(value, "integers")
        if not -self._high - 1 <= value <= self._high:
            return Problem(
                Kind.RANGE,
                f"{self._name} ends at {self._high:,}; make it {self._wider} in the models",
            )
        return None

    def all_fit(self, values: Sequence[Any]) -> bool:
        return not values or (
            set(map(type, values)) == {int}
            and max(values) <= self._high
            and min(values) > -self._high
        )

    def text(self, value: Any) -> str:
        return str(int(value))

    def texts(self, values: Sequence[Any]) -> Iterable[str]:
        return map(str, values) if set(map(type, values)) == {int} else super().texts(values)


@final
class Boolean(Codec):
    """``BOOLEAN``: SQLite stores 0 and 1."""

    def problem(self, value: Any) -> Problem | None:
        if isinstance(value, int) and value in {0, 1}:
            return None
        return Problem(Kind.BOOLEAN, "neither 0 nor 1")

    def all_fit(self, values: Sequence[Any]) -> bool:
        return set(map(type, values)) <= {int} and set(values) <= {0, 1}

    def text(self, value: Any) -> str:
        return "t" if value else "f"


@final
class Float(Codec):
    """``DOUBLE PRECISION``, or with ``single`` ``REAL``, which has four bytes on PostgreSQL."""

    def __init__(self, *, single: bool) -> None:
        self._single = single

    has_forms = True

    def problem(self, value: Any) -> Problem | None:
        if not isinstance(value, (int, float, Decimal)):
            return wrong_type(value, "numbers")
        if isinstance(value, int) and abs(value) > _EXACT and int(float(value)) != value:
            return Problem(Kind.PRECISION, "a double has fewer digits; make it Numeric")
        if self._single and not _fits_single(float(value)):
            return Problem(
                Kind.PRECISION, "REAL has four bytes on PostgreSQL; make it Double in the models"
            )
        return None

    def all_fit(self, values: Sequence[Any]) -> bool:
        if self._single:
            return super().all_fit(values)
        return set(map(type, values)) <= {float}

    def text(self, value: Any) -> str:
        return repr(float(value))

    def texts(self, values: Sequence[Any]) -> Iterable[str]:
        return map(repr, values) if set(map(type, values)) == {float} else super().texts(values)

    def forms(self, values: Sequence[Any]) -> Iterable[str]:
        pack = _SENT_REAL.pack if self._single else _SENT_DOUBLE.pack
        return [NULL if value is None else pack(value).hex() for value in values]

    def expression(self, name: str) -> str:
        # Bytes are compared: "1e+15" is Python's 1000000000000000.0.
        kind = "float4" if self._single else "float8"
        return f"encode({kind}send({name}::{kind}), 'hex')"


def _fits_single(value: float) -> bool:
    """Return whether both drivers read the same value: asyncpg the bytes, psycopg the digits."""
    if not math.isfinite(value):
        return True
    if abs(value) >= _REAL_END or _single(value) != value:
        return False
    for digits in range(6, 10):
        read = float(f"{value:.{digits}g}")
        if _single(read) == value:  # what the server prints: no shorter text is this value
            return read == value
    return False


def _single(value: float) -> float:
    return float(_REAL.unpack(_REAL.pack(value))[0])


@final
class Numeric(Codec):
    """``NUMERIC``, with ``scale`` decimal places and a total of ``precision`` digits, if given.

    SQLite stores numbers with a decimal point as doubles. SQLAlchemy rounds what it reads to the
    scale, and a double's own error, beyond the 15th digit, is not the application's.
    """

    def __init__(self, precision: int | None, scale: int | None) -> None:
        self._precision = precision
        # "NUMERIC(precision) … selects a scale of 0"
        self._scale = 0 if scale is None and precision is not None else scale
        self._end = None if precision is None else 10 ** (precision - (self._scale or 0))

    def are_plain(self, values: Sequence[Any]) -> bool:
        if (scale := self._scale) is None:
            return True
        # A value that is rounded may equal another.
        return set(map(type, values)) <= {int, float} and all(round(v, scale) == v for v in values)

    def problem(self, value: Any) -> Problem | None:
        if not isinstance(value, (int, float, Decimal)):
            return wrong_type(value, "numbers")
        number = _decimal(value)
        if not number.is_finite():
            return Problem(Kind.RANGE, "not a finite number")
        if self._scale is not None and _places(number) > self._scale:
            if not isinstance(value, float) or not self._is_noise(value):
                return Problem(Kind.PLACES, f"more than {self._scale} decimal places")
            number = Decimal(self.text(value))  # rounding it may reach the limit
        # abs() would round to the 28 digits of Python's context.
        if self._end is not None and number.copy_abs() >= self._end:
            return Problem(
                Kind.RANGE, f"out of range for NUMERIC({self._precision}, {self._scale})"
            )
        return None

    def all_fit(self, values: Sequence[Any]) -> bool:
        if self._scale is None or not set(map(type, values)) <= {float}:
            return super().all_fit(values)
        scale, end = self._scale, min(self._end or _DIGITS_END, _DIGITS_END)
        return all(round(v, scale) == v and -end < v < end for v in values)

    def _is_noise(self, value: float) -> bool:
        """Return whether the additional decimal places of a double are a rounding error."""
        assert self._scale is not None
        if _places(Decimal(f"{value:.15g}")) <= self._scale:
            return True
        return abs(value - round(value, self._scale)) < 10.0 ** -(self._scale + _NOISE_PLACES)

    def text(self, value: Any) -> str:
        if isinstance(value, float) and self._scale is not None:
            # As SQLAlchemy reads it: to_decimal_processor_factory() in engine/_processors_cy.py.
            # It rounds the double itself, not its shortest text.
            text = f"{value:.{self._scale}f}"
        else:
            number = _decimal(value)
            text = f"{number:f}" if self._scale is None else f"{number:.{self._scale}f}"
        return text.lstrip("-") if text.startswith("-") and not text.strip("-0.") else text

    def texts(self, values: Sequence[Any]) -> Iterable[str]:
        if self._scale is None or not set(map(type, values)) <= {float, type(None)}:
            return super().texts(values)
        form, zero = f"%.{self._scale}f", 0.5 * 10.0**-self._scale
        # The same as text(), without a call for each value.
        return [
            NULL if v is None else form % v if v > 0 or v <= -zero else form % 0 for v in values
        ]


def _decimal(value: int | float | Decimal) -> Decimal:
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)


def _places(number: Decimal) -> int:
    return len(f"{number:f}".partition(".")[2].rstrip("0"))
