"""Fixtures: real files, and engines that are disposed of.

The files are in memory if the system has room for them there. Otherwise, COMMIT waits for the disk,
which takes half the time of all tests, and varies a hundredfold with other load.
``PYTEST_DEBUG_TEMPROOT`` names another directory.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import random
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sa_sqlite_pool import ReaderPool, SQLiteDatabase, SQLitePool, WriterPool
from sa_sqlite_pool.opening import set_up
from sa_sqlite_pool.settings import Placement
from sa_sqlite_pool.transactions.placement import PlacementPolicy
from tests.postgresql import app, cluster

__all__ = ["app", "cluster"]

# A shell makes background processes ignore SIGINT, which the tests' own processes would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


_IN_MEMORY = Path("/dev/shm")
_ROOM = 2 * 1024**3
if _IN_MEMORY.is_dir() and shutil.disk_usage(_IN_MEMORY).free > _ROOM:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_IN_MEMORY))

MakeEngine = Callable[..., AsyncEngine]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture
async def make_engine(path: Path) -> AsyncIterator[MakeEngine]:
    """Provide ``make_engine(poolclass, **options)``: an engine on ``path``, later disposed of."""
    engines: list[AsyncEngine] = []

    def make(poolclass: type | None = None, url: str = "", **options: Any) -> AsyncEngine:
        if poolclass is not None:
            options["poolclass"] = poolclass
        engine = create_async_engine(url or f"sqlite+aiosqlite:///{path}", **options)
        engines.append(engine)
        return engine

    yield make
    for engine in reversed(engines):
        await engine.dispose()


@pytest.fixture
def swap_in(make_engine: MakeEngine) -> AsyncEngine:
    return make_engine(SQLitePool)


@pytest.fixture
def writer(make_engine: MakeEngine) -> AsyncEngine:
    return make_engine(WriterPool)


@pytest.fixture
def reader(make_engine: MakeEngine) -> AsyncEngine:
    return make_engine(ReaderPool)


@pytest.fixture
async def db(path: Path) -> AsyncIterator[SQLiteDatabase]:
    async with SQLiteDatabase(path) as database:
        yield database


class StatementLog(list[str]):
    """The statements that an engine sent, as SQLAlchemy reports them."""

    def watch(self, engine: AsyncEngine) -> None:
        event.listen(engine.sync_engine, "before_cursor_execute", self._note)

    def _note(self, _conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self.append(statement)


class Tasks(list[str]):
    """The tasks that were created, by the names of their coroutines."""

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Any, **kw: Any) -> asyncio.Task[Any]:
        self.append(coro.__qualname__)
        return asyncio.Task(coro, loop=loop, **kw)


@pytest.fixture
async def tasks() -> Tasks:
    tasks = Tasks()
    asyncio.get_running_loop().set_task_factory(tasks)
    return tasks


@pytest.fixture
def statements() -> StatementLog:
    return StatementLog()


@pytest.fixture
def numbers() -> Iterator[int]:
    return itertools.count()


Item = TypeVar("Item", bound=pytest.Item)


def one_in(count: int, items: list[Item], *, seed: str) -> tuple[list[Item], list[Item]]:
    """Return the items that run, and those that do not: every ``count``-th case of each test.

    At least one case of each test runs. ``seed`` determines the first.
    """
    kept: list[Item] = []
    left_out: list[Item] = []
    for _, group in itertools.groupby(items, lambda item: item.nodeid.partition("[")[0]):
        cases = list(group)
        chance = random.Random(f"{seed} {cases[0].nodeid}")
        first = chance.randrange(min(count, len(cases)))
        for number, item in enumerate(cases):
            (kept if number % count == first else left_out).append(item)
    return kept, left_out


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--placement thread`` or ``inline``, for all engines that do not specify it."""
    parser.addoption("--placement", choices=[one.value for one in Placement], default="auto")
    help_ = "of each test with several cases, one in so many; on each version others"
    parser.addoption("--one-in", type=int, default=1, help=help_)


def pytest_collection_finish() -> None:
    """Exclude imported modules, and the tests themselves, from garbage collections.

    They are a million objects, which cost each ``gc.collect()`` of a test half a second.
    """
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if (count := config.getoption("--one-in")) > 1:
        kept, left_out = one_in(count, items, seed=f"{sys.version_info} {sqlalchemy.__version__}")
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept
    if config.getoption("--placement") == Placement.INLINE.value:
        skip = pytest.mark.skip(reason="goes on while a statement runs in a thread")
        for item in items:
            if item.get_closest_marker("needs_thread") is not None:
                item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def placement(request: pytest.FixtureRequest) -> Iterator[None]:
    """Apply the option in the process of the tests."""
    default = Placement(request.config.getoption("--placement"))

    def policy(asked: Placement, *rest: Any) -> PlacementPolicy:
        return PlacementPolicy(default if asked is Placement.AUTO else asked, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(set_up, "PlacementPolicy", policy)
        yield
