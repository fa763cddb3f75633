"""Types that convert their values in SQL: ``bind_expression()`` and ``column_expression()``.

A copy reads values as they are stored, and sends them by COPY, so neither database executes these
expressions. That is right if both store a value in the same form, and wrong if they do not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Column, Dialect, Table, bindparam

from ..misfits import Collector
from .choosing import SQLITE, Converted, codec_of

_REASON = (
    "its bind_expression() or column_expression() would have to convert the values, and a copy "
    "executes neither: copy with models in which the column has the type that is stored, and "
    "convert the values on the server"
)


def refuse_expressions(tables: Iterable[Table], dialect: Dialect, misfits: Collector) -> None:
    """Add to ``misfits`` the columns whose stored values are not what the server would store."""
    for table in tables:
        for column in table.columns:
            if column.computed is None and _needs_sql(column, dialect):
                misfits.add_schema(table.fullname, column.name, repr(column.type), _REASON)


def _needs_sql(column: Column[Any], dialect: Dialect) -> bool:
    here, there = column.type.dialect_impl(SQLITE), column.type.dialect_impl(dialect)
    value = bindparam("value", None, type_=column.type)
    read, bound = here.column_expression(value), there.bind_expression(value)
    if read is None and bound is None:
        return False
    return isinstance(codec_of(column, dialect), Converted) or not (
        _are_same(read, there.column_expression(value))
        and _are_same(here.bind_expression(value), bound)
    )


def _are_same(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    return bool(one.compare(other))
