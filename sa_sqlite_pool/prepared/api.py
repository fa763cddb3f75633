"""``prepare()`` of the facade."""

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
        """Raise unless the database is open, and the caller outside of its closures."""

    def prepare(self, statement: Executable) -> PreparedRead:
        """Compile ``statement`` once, for calls that do little more than SQLite itself does.

        ::

            by_id = db.prepare(select(Item.id, Item.name).where(Item.id == bindparam("id")))
            row = await by_id.one(id=7)

        :param statement: a ``select()``, a union of them, or a ``text()`` that reads, with
            ``bindparam()`` for what differs from call to call, ``in_()`` lists included

        Call it once, where the program starts, also before :meth:`open`: it touches no file. Raise
        :class:`~sa_sqlite_pool.ConfigurationError` at once, with the way out, for what cannot be
        prepared: a statement that writes or locks, an entity of the ORM (name its columns), a
        lambda, or options for streams.
        """
        return PreparedRead(check_statement(statement), self.reader_engine, self._assert_usable)
