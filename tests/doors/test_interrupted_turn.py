"""An exception at any moment in the lines and in the turn does not stop the next task.

pytest-timeout, Ctrl-C twice, ``signal.setitimer`` and ``PyThreadState_SetAsyncExc`` raise one. The
interpreter raises it where a function begins and where a call has returned, which is where a
profiler is called.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import sa_sqlite_pool
from sa_sqlite_pool import SQLiteDatabase, SQLitePool
from sa_sqlite_pool.closures import shared_reader
from tests.helpers import UPDATE_FIRST, amounts, create_items, uses_of

Use = Callable[[], Awaitable[object]]

_ONE = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 1.0, "write_timeout": 1.0}
_COUNT = text("SELECT count(*) FROM items")
_PACKAGE = Path(sa_sqlite_pool.__file__).parent
_WATCHED = (f"{_PACKAGE}/turn/", f"{_PACKAGE}/transactions/writing.py")

_ENTERS_AT_ONCE = sys.version_info >= (3, 15)  # before 3.14 it is no call
_MAY_AWAIT = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR

DOORS = {"swap-in": create_async_engine, "drop-in": sa_sqlite_pool.create_async_engine}
# The loop reports an interrupted task, and a lost connection is reported when it is freed.
pytestmark = pytest.mark.filterwarnings("ignore")


class Interrupt(BaseException):
    pass


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    yield
    sys.setprofile(None)


class Interrupter:
    """Raises at the ``moments``-th moment in the watched code, in this thread."""

    def __init__(self, moments: int) -> None:
        self.left = moments
        self.where = ""

    def __call__(self, frame: FrameType, event: str, returned: object) -> None:
        code = frame.f_code
        if event not in {"call", "c_return"} or not code.co_filename.startswith(_WATCHED):
            return
        if _ENTERS_AT_ONCE and event == "c_return" and returned.__name__ == "__enter__":  # type: ignore[attr-defined]
            return  # a profiler sees it, but no exception is raised here (tests/test_mutex.py)
        if code.co_flags & _MAY_AWAIT and event == "call" and frame.f_lineno != code.co_firstlineno:
            return  # a resuming await, where the interpreter raises nothing
        self.left -= 1
        if self.left == 0:
            sys.setprofile(None)
            self.where = f"{event} at {code.co_filename}:{frame.f_lineno} ({code.co_name})"
            raise Interrupt


async def _interrupted(use: Use, moments: int) -> str:
    """Call ``use()`` in a task, interrupted once; return where, or "" if it ended earlier."""
    interrupter = Interrupter(moments)

    async def profiled() -> None:
        sys.setprofile(interrupter)
        try:
            await use()
        finally:
            sys.setprofile(None)

    task = asyncio.create_task(profiled())
    await asyncio.wait({task}, timeout=30)
    assert task.done(), interrupter.where
    if not task.cancelled() and (error := task.exception()) is not None:
        error.__traceback__ = None
    return interrupter.where


async def at_each_moment(use: Use, then: Use) -> None:
    """Interrupt ``use()`` ever later, and call ``then()`` in another task each time."""
    moments = 1
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    await use()
    while where := await _interrupted(use, moments):
        try:
            await asyncio.wait_for(asyncio.create_task(_run(then)), 5)
        except Exception as error:
            raise AssertionError(f"after moment {moments}: {where}") from error
        moments += 1
    assert moments > 10
    gc.collect()  # within the test, whose warnings are not shown


async def _run(use: Use) -> None:
    await use()


def update_all(engine: AsyncEngine) -> Use:
    async def update() -> None:
        async with engine.begin() as connection:
            await connection.execute(UPDATE_FIRST)
            await connection.execute(text("UPDATE items SET amount = amount + 1 WHERE id > 1"))

    return update


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("use", ["read", "write"])
async def test_engines(path: Path, door: str, use: str) -> None:
    """Neither the single connection nor the turn is lost, and no half is committed."""
    engine = DOORS[door](f"sqlite+aiosqlite:///{path}", poolclass=SQLitePool, **_ONE)
    await create_items(engine)
    update = update_all(engine)

    async def read_once() -> None:
        async with engine.connect() as connection:
            await connection.execute(_COUNT)

    await at_each_moment(update if use == "write" else read_once, update)
    assert len(set(await amounts(engine))) == 1
    await engine.dispose()


@pytest.mark.parametrize("slice_seconds", [shared_reader.SLICE_SECONDS, -0.01])
@pytest.mark.parametrize("use", ["write", "read", "run_write", "run_read"])
async def test_the_facade(
    path: Path, use: str, slice_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closures are included, even if a reader looks for other tasks after each of them."""
    monkeypatch.setattr(shared_reader, "SLICE_SECONDS", slice_seconds)
    async with SQLiteDatabase(path, readers=1, write_timeout=1.0, read_timeout=1.0) as db:
        await create_items(db.writer_engine)
        uses = uses_of(db)

        async def both() -> None:
            await uses[use]()
            await uses["read" if use == "run_write" else "write"]()

        await at_each_moment(uses[use], both)
