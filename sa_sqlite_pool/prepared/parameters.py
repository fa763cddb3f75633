"""The conversion of a prepared read's parameters for the driver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from sqlalchemy.exc import ArgumentError
from sqlalchemy.sql.compiler import SQLCompiler

from ..compat.sqlalchemy_core import Processor, bind_processors, expand


@final
class Binder:
    """Converts the parameters of a call into SQL and its values, as SQLAlchemy does.

    Parameters that SQLAlchemy refuses raise an exception of any class here; the call is then
    retried by SQLAlchemy, whose error states the reason.
    """

    __slots__ = ("_compiled", "_count", "_defaults", "_places", "_plain", "names", "sql")

    def __init__(self, compiled: SQLCompiler) -> None:
        self.sql = str(compiled)
        self._compiled = compiled
        binds, processors = compiled.bind_names, bind_processors(compiled)
        self.names = frozenset(binds.values())
        required = {name for bind, name in binds.items() if bind.required}
        self._defaults = {name: bind.value for bind, name in binds.items() if not bind.required}
        self._count = len(self.names)
        # Whether neither the text nor a value has to be computed for each call. Only parameters
        # without a name of their own are renamed: ``id_1`` for the value in ``Item.id == 7``.
        self._plain = (
            not (compiled.post_compile_params or compiled.literal_execute_params)
            and not (required & self._defaults.keys())
            and all(
                bind.callable is None and (bind.unique or bind.key == name)
                for bind, name in binds.items()
            )
        )
        self._places: list[tuple[str, Processor | None]] = [
            (name, processors.get(name)) for name in compiled.positiontup or ()
        ]

    def bind(self, given: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]]:
        """Return the SQL and the values for the driver."""
        if not self._plain:
            return self._bind_anew(given)
        if self._defaults:
            given = {**self._defaults, **given}
        if len(given) != self._count:
            raise KeyError
        return self.sql, tuple(
            [
                given[name] if process is None else process(given[name])
                for name, process in self._places
            ]
        )

    def _bind_anew(self, given: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]]:
        if not given.keys() <= self.names:
            raise KeyError
        parameters = self._compiled.construct_params(given, escape_names=False)
        return expand(self._compiled, parameters)

    def assert_known(self, given: Mapping[str, Any]) -> None:
        """Raise ArgumentError for parameters that the statement does not have."""
        if unknown := sorted(given.keys() - self.names):
            own = ", ".join(sorted(self.names)) or "none"
            raise ArgumentError(
                f"this prepared read has no parameter {', '.join(unknown)}; it has: {own}"
            )
