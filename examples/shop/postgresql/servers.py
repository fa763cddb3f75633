"""The servers of the demo: a primary, and a replica that shows what it has some time later."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from examples.local_postgresql import PostgreSQL, create_primary, create_replica

from ..app import Settings
from ..books import UNITS_OF_ORDERS, Books, check_books
from ..processes import ShopError
from ..results import LoadResult
from ..seed import Seeded, fill
from ..stores import EngineKind

SEEDED = "seeded"
SECONDS_TO_CATCH_UP = 60.0
SECONDS_BETWEEN_LOOKS = 0.05
# What SQLite's own numbers go on from without being told.
_NUMBER_ON = "SELECT setval(pg_get_serial_sequence('{0}', 'id'), max(id)) FROM {0}"


@dataclass(frozen=True, slots=True)
class Servers:
    """A primary and its replica."""

    primary: PostgreSQL
    replica: PostgreSQL

    def seed(self, products: int) -> Seeded:
        """Create the database that others are copied from."""
        self.primary.sql(f"CREATE DATABASE {SEEDED}")
        return asyncio.run(self._seed(products))

    async def _seed(self, products: int) -> Seeded:
        engine = create_async_engine(self.primary.url(database=SEEDED))
        try:
            async with engine.begin() as connection:
                seeded = await connection.run_sync(fill, products)
                for table in ("products", "orders"):
                    await connection.execute(text(_NUMBER_ON.format(table)))
            return seeded
        finally:
            await engine.dispose()

    def copy(self, name: str) -> None:
        """Copy the seeded database, also on the replica."""
        self.primary.sql(f"CREATE DATABASE {name} TEMPLATE {SEEDED}")
        self.catch_up()

    def settings(self, database: str, *, tokens: bool) -> Settings:
        """How the shop is to use it."""
        primary, replica = (
            server.url(database=database) for server in (self.primary, self.replica)
        )
        return Settings(primary, EngineKind.SA_SQLITE_POOL, (replica,), tokens)

    def catch_up(self) -> None:
        """Wait until the replica shows all that the primary has."""
        wanted = self.primary.sql("SELECT pg_current_wal_insert_lsn()")
        end = time.monotonic() + SECONDS_TO_CATCH_UP
        while self.replica.sql(f"SELECT pg_last_wal_replay_lsn() >= '{wanted}'") != "t":
            if time.monotonic() > end:
                raise ShopError(f"the replica does not catch up: {self.replica.log[-2000:]}")
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def audit(self, database: str, seeded: Seeded, told: LoadResult) -> Books:
        """Check the books on the primary, and whether the replica has the same in the end."""
        self.catch_up()
        same = self._rows(self.primary, database) == self._rows(self.replica, database)
        damage = [] if same else ["the replica has other orders than the primary"]

        def ask(query: str) -> Sequence[tuple[int, ...]]:
            return self._rows(self.primary, database, query)

        return check_books(ask, seeded.orders, told, damage)

    def _rows(
        self, server: PostgreSQL, database: str, query: str = UNITS_OF_ORDERS
    ) -> list[tuple[int, ...]]:
        lines = server.sql(query, database).splitlines()
        return [tuple(map(int, line.split("|"))) for line in lines]


@contextmanager
def running(folder: Path, lag_ms: int) -> Iterator[Servers]:
    """Start both in folders of their own; stop and remove them at the end, whatever ends it."""
    # As root they run as another user, who has to enter it.
    folder.chmod(0o711)
    with ExitStack() as started:
        primary = create_primary(folder / "primary")
        started.callback(primary.remove)
        replica = create_replica(primary, folder / "replica", delay_ms=lag_ms)
        started.callback(replica.remove)
        yield Servers(primary, replica)
