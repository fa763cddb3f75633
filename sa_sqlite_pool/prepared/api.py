"""The facade's ``prepare()``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from sqlalchemy import Executable, Row
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.sql.selectable import TypedReturnsRows

from .checks import check_statement
from .read import PreparedRead

if TYPE_CHECKING:
    from typing_extensions import TypeVarTuple, Unpack

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")


class _RowsAreTuples(Protocol):
    """What :class:`PreparesReads` is to a type checker that has SQLAlchemy 2.1, but not with 2.0.

    A row of two columns is a ``Row[int, str]`` in 2.1, and a ``Row[tuple[int, str]]`` in 2.0.
    """

    @property
    def _any_row(self) -> tuple[Any, ...]:
        """For type checkers alone."""


class PreparesReads(ABC):
    """A database with a reader engine, for which statements can be prepared."""

    reader_engine: AsyncEngine

    @abstractmethod
    def _assert_usable(self) -> None:
        """Raise unless the database is open and the caller is outside its closures."""

    if TYPE_CHECKING:

        @property
        def _any_row(self) -> Row[Any]:
            """For type checkers alone: see :class:`_RowsAreTuples`."""

    # The third and the fourth are for SQLAlchemy 2.0, and are never reached with 2.1.
    @overload
    def prepare(  # type: ignore[overload-overlap]
        self: _RowsAreTuples, statement: TypedReturnsRows[Unpack[Ts]]
    ) -> PreparedRead[Row[Unpack[Ts]]]: ...

    @overload
    def prepare(
        self: _RowsAreTuples, statement: Executable
    ) -> PreparedRead[Row[Unpack[tuple[Any, ...]]]]: ...

    @overload
    def prepare(  # type: ignore[overload-cannot-match]
        self, statement: TypedReturnsRows[T]
    ) -> PreparedRead[Row[T]]: ...

    @overload
    def prepare(  # type: ignore[overload-cannot-match]
        self, statement: Executable
    ) -> PreparedRead[Row[Any]]: ...

    def prepare(self, statement: Executable) -> PreparedRead[Any]:
        """Compile ``statement`` once, so that each call does little more than SQLite itself.

        ::

            by_id = db.prepare(select(Item.id, Item.name).where(Item.id == bindparam("id")))
            row = await by_id.one(id=7)

        :param statement: a ``select()``, a union of them, or a ``text()`` that reads, with
            ``bindparam()`` for values that differ between calls, including ``in_()`` lists

        Call this once, when the program starts; it touches no file, so it may precede :meth:`open`.
        Raise :class:`~sa_sqlite_pool.ConfigurationError` at once, with a remedy, for a statement
        that cannot be prepared: one that writes or locks, or that has an ORM entity (name its
        columns instead), a lambda, or options for streams.
        """
        return PreparedRead(check_statement(statement), self.reader_engine, self._assert_usable)
