"""The doors as fixtures, and a limit for programs that hang."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from sa_sqlite_pool.system.clock import sleep

from .doors import ENGINES, FACADE, READS, STOCK, SWAP_IN, WRITERS, WRITES, Door, _session

_HERE = Path(__file__).parent
_SECONDS = 20.0

# If cancelled or interrupted, stock leaves connections to the garbage collector.
LENIENT = [
    pytest.mark.filterwarnings(f"ignore::{warning}")
    for warning in (
        "pytest.PytestUnraisableExceptionWarning",
        "pytest.PytestUnhandledThreadExceptionWarning",
        "sqlalchemy.exc.SAWarning",
        "ResourceWarning",
        "RuntimeWarning",
    )
]


def pytest_report_header() -> str:
    """Return the environment of the matrix."""
    module = os.environ.get("SQLITE_MODULE", "sqlite3")
    return f"SQLAlchemy {sqlalchemy.__version__}, SQLite {sqlite3.sqlite_version} by {module}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """End a test that hangs, so the others can run."""
    for item in items:
        if not isinstance(item, pytest.Function) or _HERE not in item.path.parents:
            continue
        if inspect.iscoroutinefunction(item.obj):
            item.obj = _limited(item.obj)


def _limited(test: Any) -> Any:
    @functools.wraps(test)
    async def limited(*args: Any, **kw: Any) -> None:
        task = asyncio.ensure_future(test(*args, **kw))
        limit = asyncio.ensure_future(sleep(_SECONDS))
        await asyncio.wait([task, limit], return_when=asyncio.FIRST_COMPLETED)
        limit.cancel()
        if not task.done():
            where = [f"{f.f_code.co_filename}:{f.f_lineno}" for f in task.get_stack()]
            task.cancel()
            await asyncio.wait([task], timeout=1)
            pytest.fail(f"it hangs at {', '.join(where)}", pytrace=False)
        await task

    return limited


def _ids(ways: Any) -> list[Any]:
    return [
        pytest.param(way, id="-".join(way), marks=LENIENT if way[0] == STOCK else [])
        for way in ways
    ]


@pytest.fixture(params=[pytest.param(STOCK, marks=LENIENT), SWAP_IN, ENGINES, FACADE])
async def door(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[Door]:
    """Provide each door, and the stock engine as a control."""
    door = Door(request.param, path, _session)
    yield door
    await door.close()


@pytest.fixture(params=_ids(READS))
async def reading(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[Door]:
    """Provide each way in which a program reads, including the stock engine's."""
    door = Door(request.param[0], path, READS[request.param])
    yield door
    await door.close()


@pytest.fixture(params=_ids(WRITERS))
async def writing(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[Door]:
    """Provide each way that holds the turn from its first statement on; stock has none."""
    door = Door(request.param[0], path, WRITES[request.param])
    yield door
    await door.close()


@pytest.fixture(params=_ids(WRITES))
async def changing(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[Door]:
    """Provide each way in which a program writes, including the stock engine's."""
    door = Door(request.param[0], path, WRITES[request.param])
    yield door
    await door.close()
