"""An asyncpg connection with features that the driver itself lacks.

It counts COPY operations, reads the tag of its COMMIT, and can be closed when its loop is closed.
"""

from __future__ import annotations

from typing import Any, final

from asyncpg import Connection

from .sockets import shut_down, socket_of


@final
class CountedConnection(Connection):  # type: ignore[misc, type-arg, unused-ignore]
    """A connection that counts in ``copies`` how many COPY operations have begun.

    ``was_given_up`` is true after a COMMIT of a transaction that the server had aborted.
    """

    copies = 0
    was_given_up = False

    async def execute(self, query: str, *arguments: Any, **options: Any) -> str:
        tag: str = await super().execute(query, *arguments, **options)
        if query == "COMMIT;":  # sent by asyncpg's own Transaction
            self.was_given_up = tag == "ROLLBACK"
        return tag

    async def copy_to_table(self, *arguments: Any, **options: Any) -> Any:
        self.copies += 1
        return await super().copy_to_table(*arguments, **options)

    async def copy_records_to_table(self, *arguments: Any, **options: Any) -> Any:
        self.copies += 1
        return await super().copy_records_to_table(*arguments, **options)

    async def copy_from_table(self, *arguments: Any, **options: Any) -> Any:
        self.copies += 1
        return await super().copy_from_table(*arguments, **options)

    async def copy_from_query(self, *arguments: Any, **options: Any) -> Any:
        self.copies += 1
        return await super().copy_from_query(*arguments, **options)

    async def close(self, *, timeout: float | None = None) -> None:
        if self._loop.is_closed():
            self.terminate()
        else:
            await super().close(timeout=timeout)

    def terminate(self) -> None:
        try:
            super().terminate()
        except RuntimeError:
            if not self._loop.is_closed():  # else its transport can do nothing
                raise
            if (descriptor := socket_of(self)) is not None:
                shut_down(descriptor)
