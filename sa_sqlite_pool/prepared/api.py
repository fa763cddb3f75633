"""The facade's ``prepare()``."""

from __future__ import annotations

from abc import ABC, abstractmethod

from sqlalchemy import Executable
from sqlalchemy.ext.asyncio import AsyncEngine

from .checks import check_statement
from .read import PreparedRead


class PreparesReads(ABC):
    """A database with a reader engine, for which statements can be prepared."""

    reader_engine: AsyncEngine

    @abstractmethod
    def _assert_usable(self) -> None:
        """Raise unless the database is open and the caller is outside its closures."""

    def prepare(self, statement: Executable) -> PreparedRead:
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
