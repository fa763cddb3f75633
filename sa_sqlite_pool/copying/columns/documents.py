r"""Columns of JSON.

"The json data type stores an exact copy of the input text …; jsonb … does not preserve white space,
does not preserve the order of object keys, and does not keep duplicate object keys" and rejects
``\u0000`` (https://www.postgresql.org/docs/current/datatype-json.html); ``json`` accepts that, and
fails when it is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, NoReturn, final

from .base import ESCAPES, NULL, Codec, Kind, Problem, escaped
from .texts import unencodable, wrong_type

_UNESCAPES = {escape: character for character, escape in ESCAPES}
_ESCAPE = re.compile(r"\\[\\bfnrtv]")


@final
class Json(Codec):
    """``JSON``, or ``JSONB`` if it is ``binary``.

    On SQLite, it is a text, or a number if the affinity of the column has converted the text.
    """

    def __init__(self, *, binary: bool) -> None:
        self._binary = binary
        self.has_forms = binary
        self.read_form = _jsonb_form if binary else None

    def are_plain(self, values: Sequence[Any]) -> bool:
        return not self._binary

    def problem(self, value: Any) -> Problem | None:
        if isinstance(value, (int, float)) and value - value == 0:
            return None
        if type(value) is not str:
            return wrong_type(value, "JSON")
        if (found := unencodable(value)) is not None:
            return found
        return self._document_problem(value)

    def _document_problem(self, value: str) -> Problem | None:
        try:
            (_NUMERIC if self._binary else _STRICT).decode(value)
            if self._binary and _is_deep(value):
                _jsonb_form(escaped(value))  # it will be compared in this form
            return _escape_problem(_PAIRS.decode(value)) if "\\u" in value else None
        except RecursionError:
            return Problem(Kind.JSON, "nested more deeply than Python's json can read")
        except _BeyondNumericError as error:
            return Problem(Kind.RANGE, f"{error}, which PostgreSQL's JSONB cannot store")
        except ValueError:
            return Problem(Kind.JSON, "not valid JSON")

    def text(self, value: Any) -> str:
        return escaped(value) if type(value) is str else repr(value)

    def forms(self, values: Sequence[Any]) -> Iterable[str]:
        form = self.read_form
        texts = self.texts(values)
        return texts if form is None else [t if t == NULL else form(t) for t in texts]


def _jsonb_form(text: str) -> str:
    """Return the same text for all texts of one document; ``text`` is in the format of COPY."""
    return json.dumps(_EXACT.decode(_unescaped(text)), sort_keys=True)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _escape_problem(document: Any) -> Problem | None:
    found = unencodable("".join(_strings(document)))
    if found is None:
        return None
    if found.kind is Kind.NUL:
        return Problem(Kind.JSON_NUL, "PostgreSQL's JSON cannot contain \\u0000")
    return Problem(Kind.JSON, "half of a surrogate pair")


def _strings(document: Any) -> Iterator[str]:
    rest = [document]  # not by recursion: a document may be nested as deeply as Python can read
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, (list, tuple)):
            rest.extend(item)


def _is_deep(text: str) -> bool:
    return text.count("[") + text.count("{") > _SHALLOW


class _BeyondNumericError(Exception):
    """A number is beyond the limits of PostgreSQL's NUMERIC, as which JSONB stores numbers."""


def _numeric(text: str) -> None:
    """Raise an error if NUMERIC cannot represent a number."""
    # "up to 131072 digits before the decimal point; up to 16383 digits after the decimal point"
    # (https://www.postgresql.org/docs/current/datatype-numeric.html)
    if len(text) < _FEW_DIGITS and "e" not in text and "E" not in text:
        return
    try:
        number = Decimal(text)
    except ArithmeticError:  # an exponent that not even Decimal can represent
        raise _BeyondNumericError("an exponent with many digits") from None
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    if len(digits) + exponent > _DIGITS_BEFORE and any(digits):
        raise _BeyondNumericError(f"a number with {len(digits) + exponent:,} digits")
    if -exponent > _DIGITS_AFTER:
        raise _BeyondNumericError(f"a number with {-exponent:,} decimal places")


def _number(text: str) -> str:
    sign, digits, exponent = Decimal(text).as_tuple()
    known = "".join(map(str, digits)).lstrip("0")
    figures = known.rstrip("0")
    # No string of a document contains NUL.
    return f"\0{sign}.{figures}e{exponent + len(known) - len(figures)}" if figures else "\0"  # type: ignore[operator]


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda found: _UNESCAPES[found[0]], text)


_SHALLOW = 100
_FEW_DIGITS = 1000
_DIGITS_BEFORE, _DIGITS_AFTER = 131_072, 16_383

# Numbers are not converted: Python would limit integers to 4,300 digits.
_STRICT = json.JSONDecoder(parse_constant=_refuse, parse_float=len, parse_int=len)
_NUMERIC = json.JSONDecoder(parse_constant=_refuse, parse_float=_numeric, parse_int=_numeric)
# All strings of a document, including those under a repeated key.
_PAIRS = json.JSONDecoder(parse_float=len, parse_int=len, object_pairs_hook=list)
_EXACT = json.JSONDecoder(parse_float=_number, parse_int=_number)
