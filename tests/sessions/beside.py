"""Helpers for tests of auto sessions: the requests to each engine, and checked-out connections."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from sa_sqlite_pool.pools.base import FairPool
from sa_sqlite_pool.servers.pool import ServerPool
from sa_sqlite_pool.turn.permit import Permit

Maker = async_sessionmaker[AsyncSession]

EVENTS = [
    "begin",
    "commit",
    "rollback",
    "savepoint",
    "release_savepoint",
    "rollback_savepoint",
    "begin_twophase",
    "prepare_twophase",
]


class Heard(list[str]):
    """Statements and transaction events of engines, as ``reader: SELECT``."""

    def watch(self, **engines: AsyncEngine) -> Heard:
        for name, engine in engines.items():
            sync_engine = engine.sync_engine
            event.listen(sync_engine, "before_cursor_execute", self._statement(name))
            for what in EVENTS:
                event.listen(sync_engine, what, self._event(name, what))
        return self

    def _statement(self, name: str) -> Any:
        def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
            self.append(f"{name}: {statement.split(maxsplit=1)[0]}")

        return note

    def _event(self, name: str, what: str) -> Any:
        return lambda *_: self.append(f"{name}: {what}")

    def of(self, name: str) -> list[str]:
        """Return the statements and events of one engine."""
        return [line.removeprefix(f"{name}: ") for line in self if line.startswith(f"{name}: ")]


def permits(engine: AsyncEngine) -> list[Permit]:
    """Return the permits under which connections of an engine are checked out."""
    pool = engine.pool
    if isinstance(pool, ServerPool):
        return [permit for server in pool.servers for permit in server.line.permits]
    assert isinstance(pool, FairPool)
    return pool.checkouts.permits


def checked_out(*engines: AsyncEngine) -> int:
    """Return how many connections of these engines are checked out."""
    return sum(engine.pool.checkedout() for engine in engines)  # type: ignore[attr-defined]
