"""A connection of asyncpg that counts its COPYs, which the driver itself does not count."""

from __future__ import annotations

from typing import Any, final

from asyncpg import Connection


@final
class CountedConnection(Connection):  # type: ignore[misc, type-arg, unused-ignore]
    """``copies`` is how many have begun."""

    copies = 0

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
