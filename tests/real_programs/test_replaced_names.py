"""SQLAlchemy's own names, with this package's in their place: for imports that cannot be changed.

Start-up code does it (``sitecustomize.py``), and tests that swap the engines of an application.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext import asyncio as package
from sqlalchemy.ext.asyncio import engine as module

import sa_sqlite_pool
from sa_sqlite_pool import SQLiteDatabase, SQLitePool

PLACES = {"package": [package], "module": [module], "both": [package, module]}


@pytest.fixture(params=PLACES)
def theirs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The place of SQLAlchemy's functions, which are this package's there."""
    places = PLACES[request.param]
    for place in places:
        for name in ("create_async_engine", "async_engine_from_config"):
            monkeypatch.setattr(place, name, getattr(sa_sqlite_pool, name))
    return places[0]


async def test_engines(theirs: Any, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "async_sessionmaker", sa_sqlite_pool.async_sessionmaker)
    engine = theirs.create_async_engine(f"sqlite+aiosqlite:///{path}")
    assert type(engine.pool) is SQLitePool
    async with package.async_sessionmaker(engine)() as session:
        assert await session.scalar(text("SELECT 1")) == 1
    await engine.dispose()


def test_engines_from_a_configuration(theirs: Any, path: Path) -> None:
    for place in (theirs, sa_sqlite_pool):
        engine = place.async_engine_from_config({"sqlalchemy.url": f"sqlite+aiosqlite:///{path}"})
        assert type(engine.pool) is SQLitePool


@pytest.mark.usefixtures("theirs")
async def test_the_facade(path: Path) -> None:
    async with SQLiteDatabase(path) as db, db.read() as session:
        assert await session.scalar(text("SELECT 1")) == 1


@pytest.mark.parametrize("name", ["create_async_engine", "async_engine_from_config"])
def test_what_another_puts_there_is_called_once(
    name: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As OpenTelemetry's instrumentation is, over SQLAlchemy's function or this package's."""
    url = f"sqlite+aiosqlite:///{path}"
    argument: Any = url if name == "create_async_engine" else {"sqlalchemy.url": url}
    for function in (getattr(package, name), getattr(sa_sqlite_pool, name)):
        calls: list[Any] = []

        def instrumented(*args: Any, _function: Any = function, **kw: Any) -> Any:
            calls.append(args)  # noqa: B023
            return _function(*args, **kw)

        monkeypatch.setattr(package, name, instrumented)
        assert type(getattr(sa_sqlite_pool, name)(argument).pool) is SQLitePool
        assert len(calls) == 1
