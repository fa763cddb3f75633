"""The check that a statement can be prepared; others are refused at once, with a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ClauseElement, CompoundSelect, TextClause, inspect
from sqlalchemy.orm import Bundle, FromStatement
from sqlalchemy.sql import visitors
from sqlalchemy.sql.lambdas import LambdaElement
from sqlalchemy.sql.selectable import SelectBase

from ..errors import ConfigurationError
from ..sessions.reads import only_reads

# Options of statements whose rows are fetched on demand.
_STREAMING = ("yield_per", "stream_results", "max_row_buffer")


def check_statement(statement: Any) -> ClauseElement:
    """Return ``statement``, or raise ConfigurationError if it cannot be prepared."""
    if isinstance(statement, LambdaElement):
        raise _refused("a lambda", "give the statement that it returns, with bindparam()")
    if isinstance(statement, FromStatement):
        raise _refused("from_statement() loads objects of the ORM", "give the inner statement")
    if getattr(statement, "is_dml", False):
        raise _writes(statement)
    if not isinstance(statement, (SelectBase, TextClause)):
        raise _refused(_name(statement), "give a select(), a union of them, or a text()")
    if any(isinstance(element, LambdaElement) for element in visitors.iterate(statement)):
        raise _refused("a lambda inside", "give the expression that it returns, with bindparam()")
    if not only_reads(statement):
        raise _writes(statement)
    for entity in _entities(statement):
        raise _refused(
            f"{entity} is an entity of the ORM, which belongs to a session",
            "name columns, as in select(Item.id, Item.name), or use session.get() in db.read()",
        )
    _check_options(statement)
    return statement


def _check_options(statement: Any) -> None:
    options = statement.get_execution_options()
    for name in _STREAMING:
        if options.get(name):
            raise _refused(
                f"the option {name}, since all rows are fetched at once",
                "leave it out, or use session.stream() in db.read()",
            )


def _entities(statement: Any) -> Iterator[str]:
    """Yield the names of columns that load ORM objects, or bundles of their attributes."""
    if isinstance(statement, CompoundSelect):
        for select in statement.selects:
            yield from _entities(select)
    for column in getattr(statement, "column_descriptions", ()):
        expression = column["expr"]
        found = inspect(expression, raiseerr=False)
        if isinstance(expression, Bundle) or (
            found is not None
            and (getattr(found, "is_mapper", False) or getattr(found, "is_aliased_class", False))
        ):
            yield str(column["name"])


def _name(statement: object) -> str:
    return f"{type(statement).__name__} is not a statement that reads"


def _writes(statement: object) -> ConfigurationError:
    return _refused(
        f"this {type(statement).__name__} writes, locks, or is not known to be read-only",
        "use db.write(), db.run_write(), or for a read db.read()",
    )


def _refused(what: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(f"prepare(): {what}: {remedy}")
