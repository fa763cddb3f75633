"""COPY, by each driver in its own way; the bytes are the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol, final

from sqlalchemy import Dialect, Table

from ..errors import ConfigurationError

Take = Callable[[bytes], Awaitable[None]]

# asyncpg's own limit for a command (command_timeout) is not meant for these; it takes no None.
_NO_LIMIT_SECONDS = 7 * 86_400.0


class Wire(Protocol):
    """COPY by a driver; ``connection`` is the driver's own."""

    async def send(
        self, connection: Any, table: Table, columns: Sequence[str], blocks: AsyncIterator[bytes]
    ) -> None:
        """Send rows in the text format."""

    async def receive(self, connection: Any, query: str, take: Take) -> None:
        """Read the rows of a query in the text format; ``take`` gets them in parts of any size."""


@final
class Asyncpg:
    """https://magicstack.github.io/asyncpg/current/api/index.html#asyncpg.connection.Connection"""

    async def send(
        self, connection: Any, table: Table, columns: Sequence[str], blocks: AsyncIterator[bytes]
    ) -> None:
        await connection.copy_to_table(
            table.name,
            schema_name=table.schema,
            columns=columns,
            source=blocks,
            timeout=_NO_LIMIT_SECONDS,
        )

    async def receive(self, connection: Any, query: str, take: Take) -> None:
        await connection.copy_from_query(query, output=take, timeout=_NO_LIMIT_SECONDS)


@final
class Psycopg:
    """https://www.psycopg.org/psycopg3/docs/basic/copy.html"""

    def __init__(self, dialect: Dialect) -> None:
        self._preparer = dialect.identifier_preparer

    async def send(
        self, connection: Any, table: Table, columns: Sequence[str], blocks: AsyncIterator[bytes]
    ) -> None:
        names = ", ".join(map(self._preparer.quote_identifier, columns))
        # Not composed by psycopg: no parameter is in it.
        sql = f"COPY {self._preparer.format_table(table)} ({names}) FROM STDIN"
        async with connection.cursor() as cursor, cursor.copy(sql) as copy:
            async for block in blocks:
                await copy.write(block)

    async def receive(self, connection: Any, query: str, take: Take) -> None:
        async with (
            connection.cursor() as cursor,
            cursor.copy(f"COPY ({query}) TO STDOUT") as copy,
        ):
            async for data in copy:
                await take(bytes(data))


def wire_of(dialect: Dialect) -> Wire:
    """Return COPY for an engine's driver; raise :class:`~sa_sqlite_pool.ConfigurationError`."""
    if dialect.name == "postgresql" and dialect.driver == "asyncpg":
        return Asyncpg()
    if dialect.name == "postgresql" and dialect.driver.startswith("psycopg") and dialect.is_async:
        return Psycopg(dialect)
    raise ConfigurationError(
        f"copy_to() cannot write to {dialect.name}+{dialect.driver}: use an engine of "
        "create_async_engine() with a URL of postgresql+asyncpg or postgresql+psycopg"
    )


def is_drivers(error: Exception) -> bool:
    """Return whether an error is a driver's own: neither is imported here."""
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return not modules.isdisjoint({"asyncpg", "psycopg"})
