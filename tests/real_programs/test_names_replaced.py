"""Programs that replace SQLAlchemy's names by this package's, for their libraries."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext import asyncio as theirs
from sqlalchemy.ext.asyncio import engine as theirs_engine
from sqlalchemy.pool import NullPool

import sa_sqlite_pool
from sa_sqlite_pool import AsyncEngine, SQLiteDatabase, SQLitePool

NAMES = [
    "AsyncSession",
    "async_engine_from_config",
    "async_sessionmaker",
    "create_async_engine",
]


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace all names, as a program does before it imports its libraries."""
    for name in NAMES:
        monkeypatch.setattr(theirs, name, getattr(sa_sqlite_pool, name))
    for name in ("async_engine_from_config", "create_async_engine"):
        monkeypatch.setattr(theirs_engine, name, getattr(sa_sqlite_pool, name))


def _from_config(url: str, **kw: Any) -> theirs.AsyncEngine:
    return theirs.async_engine_from_config({"sqlalchemy.url": url}, **kw)


def _create(url: str, **kw: Any) -> theirs.AsyncEngine:
    return theirs.create_async_engine(url, **kw)


@pytest.mark.usefixtures("replaced")
@pytest.mark.parametrize("create", [_create, _from_config])
async def test_engines(path: Path, create: Callable[..., theirs.AsyncEngine]) -> None:
    """They are this package's, with its default pool or a given one."""
    url = f"sqlite+aiosqlite:///{path}"
    engine = create(url)
    assert (type(engine), type(engine.pool)) == (AsyncEngine, SQLitePool)
    async with engine.connect() as connection:
        assert await connection.scalar(select(1)) == 1
    await engine.dispose()
    assert type(create(url, poolclass=NullPool).pool) is NullPool


@pytest.mark.usefixtures("replaced")
async def test_the_facade(path: Path) -> None:
    async with SQLiteDatabase(path) as db, db.read() as session:
        assert await session.scalar(select(1)) == 1


async def test_a_function_around_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrapper of the program calls this package's; engines created elsewhere pass it, too."""
    urls: list[str] = []

    def create(url: Any, **kw: Any) -> theirs.AsyncEngine:
        urls.append(str(url))
        return sa_sqlite_pool.create_async_engine(url, **kw)

    monkeypatch.setattr(theirs, "create_async_engine", create)
    url = f"sqlite+aiosqlite:///{path}"
    assert type(theirs.create_async_engine(url).pool) is SQLitePool
    sa_sqlite_pool.create_async_engine(url)
    assert set(urls) == {url}


def test_a_function_that_was_there_first(path: Path) -> None:
    """It imports this package when it is first called."""
    program = """
import sys
from sqlalchemy.ext import asyncio as theirs

def create(url, **kw):
    import sa_sqlite_pool
    return sa_sqlite_pool.create_async_engine(url, **kw)

theirs.create_async_engine = create
print(type(theirs.create_async_engine(sys.argv[1]).pool).__name__)
"""
    url = f"sqlite+aiosqlite:///{path}"
    told = subprocess.run(
        [sys.executable, "-c", program, url],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(sa_sqlite_pool.__file__).parents[1],
    )
    assert told.stdout == "SQLitePool\n", told.stderr


def test_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replacement that is set later is called, although an earlier call failed."""
    monkeypatch.setattr(theirs, "create_async_engine", sa_sqlite_pool.create_async_engine)
    with pytest.raises(TypeError, match="no_such_option"):
        theirs.create_async_engine("sqlite+aiosqlite://", no_such_option=1)
    expected = theirs_engine.create_async_engine("sqlite+aiosqlite://")
    monkeypatch.setattr(theirs, "create_async_engine", lambda *_, **__: expected)
    made = sa_sqlite_pool.create_async_engine("sqlite+aiosqlite://")
    assert made.sync_engine is expected.sync_engine


@pytest.mark.usefixtures("replaced")
async def test_sessions_of_a_class_derived_before(path: Path) -> None:
    """SQLModel's are an example, if it was imported first."""
    engine = theirs.create_async_engine(f"sqlite+aiosqlite:///{path}")
    for session_class in (_Session, theirs.AsyncSession):
        async with theirs.async_sessionmaker(engine, class_=session_class)() as session:
            assert isinstance(session, session_class)
            assert await session.scalar(select(1)) == 1
    await engine.dispose()


class _Session(theirs.AsyncSession):
    """A session class of a library."""
