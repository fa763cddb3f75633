"""Choose the codec of a column by its type in the application's models.

If a type of the application (a ``TypeDecorator``) is stored as the same type on both sides, its
stored values are copied unchanged: encrypted values stay encrypted, and nothing is hashed twice.
If it is not, or if the column has a time zone, values go through the type: it reads them as from
SQLite, and binds them as for PostgreSQL.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, time
from functools import partial
from typing import Any, final

from sqlalchemy import Column, Dialect, types
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import CompileError
from sqlalchemy.types import TypeDecorator, TypeEngine

from .base import READ_AS_NULL, Codec, Kind, Problem
from .documents import Json
from .moments import Interval, Moment, Parse, places_of
from .numbers import Boolean, Float, Integer, Numeric
from .texts import Bytes, Enum, Other, Text, Uuid, UuidText, unencodable

SQLITE = sqlite.dialect()
_GENERIC = DefaultDialect()


def codec_of(column: Column[Any], dialect: Dialect) -> Codec:
    """Return the codec of a column; ``dialect`` is the dialect of the engine for PostgreSQL.

    A type for which PostgreSQL has no name is a misfit of the models, so nothing will be sent.
    """
    there: TypeEngine[Any] = column.type.dialect_impl(dialect)
    here: TypeEngine[Any] = column.type.dialect_impl(SQLITE)
    stored, wanted = bare(here), bare(there)
    try:
        ddl = column.type.compile(dialect=dialect)
    except CompileError:
        return Other("NULL")
    is_same = _family(stored) is _family(wanted)
    codec = _codec(wanted, ddl, stored.result_processor(SQLITE, None) if is_same else None)
    is_decorated = isinstance(here, TypeDecorator) or isinstance(there, TypeDecorator)
    is_zoned = bool(getattr(wanted, "timezone", False))
    if is_same and _family(wanted) is not None and not (is_decorated and is_zoned):
        return codec
    return Converted(codec, here, there, dialect)


def bare(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return the type as which a type of the application is stored."""
    while isinstance(type_, TypeDecorator):
        type_ = type_.impl_instance
    return type_


def _family(type_: TypeEngine[Any]) -> type[TypeEngine[Any]] | None:
    if type_.__visit_name__ == "float":  # psycopg's is not a Float in SQLAlchemy 2.0
        return types.Float
    return next((family for family in _MAKERS if isinstance(type_, family)), None)


def _codec(wanted: TypeEngine[Any], ddl: str, parse: Parse | None) -> Codec:
    if (family := _family(wanted)) is not None:
        return _MAKERS[family](wanted, ddl, parse)
    return Interval(ddl) if ddl.startswith("INTERVAL") else Other(ddl)


def _moment(kind: type[date | time], wanted: Any, ddl: str, parse: Parse | None) -> Codec:
    zoned = bool(getattr(wanted, "timezone", False))
    return Moment(kind, parse, zoned=zoned, places=places_of(ddl))


def _string(wanted: Any, ddl: str, _: object) -> Codec:
    if ddl.startswith(("VARCHAR", "CHAR")):
        length = wanted.length or (1 if ddl.startswith("CHAR") else None)
        return Text(length, padded=ddl.startswith("CHAR"))
    return Text() if ddl.startswith("TEXT") else Other(ddl)


def _integer(_wanted: Any, ddl: str, _: object) -> Codec:
    return Integer({"SMALLINT": 16, "BIGINT": 64}.get(ddl, 32))


def _float(wanted: Any, ddl: str, _: object) -> Codec:
    # "FLOAT(1) to FLOAT(24) as selecting the real type"
    single = ddl == "REAL" or (ddl.startswith("FLOAT(") and wanted.precision <= _REAL_BITS)
    return Float(single=single)


def _uuid(_wanted: Any, ddl: str, _: object) -> Codec:
    return Uuid() if ddl == "UUID" else UuidText()


_REAL_BITS = 24

# The family of a type is the first that it is an instance of: an enum is a string, too.
_MAKERS: dict[type[TypeEngine[Any]], Callable[[Any, str, Parse | None], Codec]] = {
    types.Enum: lambda wanted, *_: Enum(wanted.enums),
    types.JSON: lambda _, ddl, __: Json(binary=ddl == "JSONB"),
    types.Uuid: _uuid,
    types.Boolean: lambda *_: Boolean(),
    types.LargeBinary: lambda *_: Bytes(),
    types.Integer: _integer,
    types.Float: _float,
    types.Numeric: lambda wanted, *_: Numeric(wanted.precision, wanted.scale),
    types.DateTime: partial(_moment, datetime),
    types.Date: partial(_moment, date),
    types.Time: partial(_moment, time),
    types.String: _string,
}


@final
class Converted(Codec):
    """Values that are converted by their type: read as from SQLite, and bound for PostgreSQL."""

    def __init__(
        self, codec: Codec, here: TypeEngine[Any], there: TypeEngine[Any], dialect: Dialect
    ) -> None:
        self._codec = codec
        self._read = here.result_processor(SQLITE, None)
        self._there = there
        self._dialect = dialect
        self.has_forms = codec.has_forms
        self.padded_to = codec.padded_to
        self.read_form = codec.read_form

    def are_plain(self, values: Sequence[Any]) -> bool:
        return isinstance(self._codec, Other)

    def _value(self, stored: Any) -> Any:
        value = stored if self._read is None else self._read(stored)
        return _bound(self._there, value, self._dialect)

    def problem(self, value: Any) -> Problem | None:
        # Nothing can read invalid UTF-8, whatever its type would convert it to.
        if isinstance(value, str) and (found := unencodable(value)) and found.kind is Kind.UTF8:
            return found
        try:
            converted = self._value(value)
        except Exception as error:  # the application's type may raise anything
            text = " ".join(str(error).split())
            return Problem(Kind.UNREADABLE, f"its type raised {type(error).__name__}: {text}")
        return READ_AS_NULL if converted is None else self._codec.problem(converted)

    def text(self, value: Any) -> str:
        return next(iter(self.texts([value])))

    def texts(self, values: Sequence[Any]) -> Iterable[str]:
        return self._codec.texts(self._values(values))

    def forms(self, values: Sequence[Any]) -> Iterable[str]:
        return self._codec.forms(self._values(values))

    def expression(self, name: str) -> str:
        return self._codec.expression(name)

    def _values(self, values: Sequence[Any]) -> list[Any]:
        return [None if value is None else self._value(value) for value in values]


def _bound(type_: TypeEngine[Any], value: Any, dialect: Dialect) -> Any:
    """Return what a type binds, before the driver's own conversions."""
    while isinstance(type_, TypeDecorator):
        if type(type_).process_bind_param is not TypeDecorator.process_bind_param:
            value = type_.process_bind_param(value, dialect)
        type_ = type_.impl_instance
    if isinstance(type_, types.JSON):
        return json.dumps(value)
    if isinstance(type_, types.Enum) and value is not None:
        bind = types.Enum.bind_processor(type_, _GENERIC)  # type: ignore[no-untyped-call]
        return value if bind is None else bind(value)
    if isinstance(type_, types.UserDefinedType):  # of the application, or of a library
        own = type_.bind_processor(dialect)
        return value if own is None else own(value)
    return value
