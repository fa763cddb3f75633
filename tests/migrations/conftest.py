"""Fixtures: an Alembic project, and its database."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.migrations import upgrade
from tests.migrations.scripts import CREATE, Scripts, hooks


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """Restore the loggers, which Alembic's own templates disable in the calling process."""
    yield
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.disabled = False


@pytest.fixture
def path(scripts: Scripts) -> Path:
    return scripts.database


@pytest.fixture
def scripts(tmp_path: Path) -> Iterator[Scripts]:
    """Provide a project with one revision, which creates ``parents`` and ``children``."""
    scripts = Scripts(tmp_path / "project")
    scripts.add(CREATE, "op.drop_table('children'); op.drop_table('parents')")
    yield scripts
    hooks.clear()


@pytest.fixture
async def filled(scripts: Scripts) -> AsyncIterator[SQLiteDatabase]:
    """Provide the project's database at 0001, with a few rows."""
    async with SQLiteDatabase(scripts.database) as db:
        await upgrade(db, "0001", config=scripts.ini)
        scripts.fill(parents=3, children=30)
        yield db
