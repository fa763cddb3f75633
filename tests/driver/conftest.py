"""Fixtures: a database with a log, and its checkpointer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sa_sqlite_pool.driver import checkpoints
from sa_sqlite_pool.driver.checkpoints import Checkpointer
from tests.driver.checkpointing import Database, open_checkpointer


@pytest.fixture(params=[True, False], ids=["affected", "fixed"])
def affected(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the SQLite is taken for one that can lose commits."""
    monkeypatch.setattr(checkpoints, "has_reset_bug", lambda _: request.param)
    return bool(request.param)


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    database = Database(path)
    yield database
    database.other.close()


@pytest.fixture
async def checkpointer(database: Database, affected: bool) -> AsyncIterator[Checkpointer]:
    checkpointer = await open_checkpointer(database.path)
    yield checkpointer
    await checkpointer.close()
