"""COPY, which each driver does in its own way; the bytes are the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol, final

from sqlalchemy import Dialect

from ..errors import ConfigurationError
from .names import Place, quoted

Take = Callable[[bytes], Awaitable[None]]

# asyncpg's own limit for a command (command_timeout) is not meant for COPY; None does not lift it.
_NO_LIMIT_SECONDS = 7 * 86_400.0


class Wire(Protocol):
    """COPY through a driver; ``connection`` is the driver's own connection."""

    async def send(
        self, connection: Any, table: Place, columns: Sequence[str], blocks: AsyncIterator[bytes]
    ) -> None:
        """Send rows in the text format."""

    async def receive(self, connection: Any, query: str, take: Take) -> None:
        """Read the rows of a query in the text format; ``take`` receives parts of any size."""


@final
class Asyncpg:
    """https://magicstack.github.io/asyncpg/current/api/index.html#asyncpg.connection.Connection"""

    async def send(
        self, connection: Any, table: Place, columns: Sequence[str], blocks: AsyncIterator[bytes]
    ) -> None:
        ended = asyncio.get_running_loop().create_future()
        source = _Source(blocks, ended)
        connection.add_termination_listener(source.end)
        copying = asyncio.ensure_future(
            connection.copy_to_table(
                table.name,
                schema_name=table.schema,
                columns=columns,
                source=source,
                timeout=_NO_LIMIT_SECONDS,
            )
        )
        try:
            await asyncio.wait({copying, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not copying.done() and not source.is_asked:
                from asyncpg import ConnectionDoesNotExistError  # noqa: PLC0415 - an extra

                raise ConnectionDoesNotExistError(
                    "the connection was lost while rows were being sent; the server's log says why"
                )
            await asyncio.wait({copying})
        finally:
            connection.remove_termination_listener(source.end)
            copying.cancel()
            await asyncio.wait({copying})
            if not copying.cancelled():
                copying.exception()  # retrieve it, even if another error is raised
        copying.result()

    async def receive(self, connection: Any, query: str, take: Take) -> None:
        await connection.copy_from_query(query, output=take, timeout=_NO_LIMIT_SECONDS)


@final
class _Source:
    """Blocks for asyncpg, for as long as the connection lasts.

    asyncpg waits until it may write before it requests a block, and for a closed connection that
    wait never ends: ``asyncio`` does not wake it. If asyncpg is not waiting, it gets no further
    block, and raises what the server has said.
    """

    def __init__(self, blocks: AsyncIterator[bytes], ended: asyncio.Future[None]) -> None:
        self._blocks = blocks
        self._ended = ended
        self.is_asked = False

    def end(self, _: object) -> None:
        """Record that the connection has been closed."""
        if not self._ended.done():
            self._ended.set_result(None)

    def __aiter__(self) -> _Source:
        return self

    async def __anext__(self) -> bytes:
        self.is_asked = True
        block = b"" if self._ended.done() else await anext(self._blocks)
        if self._ended.done():
            raise StopAsyncIteration
        self.is_asked = False
        return block


@final
class Psycopg:
    """https://www.psycopg.org/psycopg3/docs/basic/copy.html"""

    async def send(
        self, connection: Any, table: Place, columns: Sequence[str], blocks: AsyncIterator[bytes]
    ) -> None:
        names = ", ".join(map(quoted, columns))
        # It is not composed by psycopg, since it has no parameters.
        sql = f"COPY {table.sql} ({names}) FROM STDIN"
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
    """Return COPY for an engine's driver, or raise :class:`~sa_sqlite_pool.ConfigurationError`."""
    if dialect.name == "postgresql" and dialect.driver == "asyncpg":
        return Asyncpg()
    if dialect.name == "postgresql" and dialect.driver.startswith("psycopg") and dialect.is_async:
        return Psycopg()
    raise ConfigurationError(
        f"copy_to() cannot write to {dialect.name}+{dialect.driver}: use an engine of "
        "create_async_engine() with a URL of postgresql+asyncpg or postgresql+psycopg"
    )


def is_drivers(error: Exception) -> bool:
    """Return whether an error is a driver's own, without importing a driver."""
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return not modules.isdisjoint({"asyncpg", "psycopg"})
