"""Eager tasks, other loops, debug mode: every door works as with the defaults."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from .doors import ENGINES, FACADE, STOCK, SWAP_IN, Application, Door, _session

KINDS = [STOCK, SWAP_IN, ENGINES, FACADE]
Main = Callable[[], Coroutine[Any, Any, None]]


def _eager(main: Main) -> None:
    if sys.version_info < (3, 12):
        pytest.skip("eager tasks came with Python 3.12")

    async def begin() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        await main()

    asyncio.run(begin())


def _uvloop(main: Main) -> None:
    pytest.importorskip("uvloop").run(main())


def _debug(main: Main) -> None:
    asyncio.run(main(), debug=True)


def _own_factory(main: Main) -> None:
    async def begin() -> None:
        def factory(loop: Any, coroutine: Any, **kw: Any) -> Any:
            return asyncio.Task(coroutine, loop=loop, **kw)

        asyncio.get_running_loop().set_task_factory(factory)
        await main()

    asyncio.run(begin())


@pytest.fixture(params=[_eager, _uvloop, _debug, _own_factory])
def run(request: pytest.FixtureRequest) -> Callable[[Main], None]:
    """The ways to run a program."""
    return request.param  # type: ignore[no-any-return]


async def program(app: Application) -> None:
    await app.write("CREATE TABLE t (id INTEGER PRIMARY KEY, x)")

    async def work(number: int) -> None:
        async with app.transaction() as session:
            await session.execute(text("INSERT INTO t (x) VALUES (:x)"), {"x": number})
        async with app.session() as session:
            await session.scalar(text("SELECT count(*) FROM t"))

    if app.kind == STOCK:  # which keeps no order, and may find the database locked for too long
        for number in range(10):
            await work(number)
    else:
        await asyncio.gather(*(work(number) for number in range(10)))
    assert await app.value("SELECT count(*) FROM t") == 10
    task = asyncio.create_task(work(11))
    task.cancel()
    await asyncio.wait([task])
    assert await app.value("SELECT count(*) FROM t") in {10, 11}


async def functions(app: Application) -> None:
    insert, count = text("INSERT INTO t (x) VALUES (1)"), text("SELECT count(*) FROM t")
    before = await app.value("SELECT count(*) FROM t")
    await app.db.run_write(lambda session: session.execute(insert))
    await app.db.run_write_core(lambda connection: connection.execute(insert))
    writes = [app.db.run_write(lambda session: session.execute(insert)) for _ in range(5)]
    await asyncio.gather(*writes)
    assert await app.db.run_read(lambda session: session.scalar(count)) == before + 7
    assert await app.db.run_read_core(lambda connection: connection.scalar(count)) == before + 7
    await app.db.checkpoint("truncate")
    await app.db.backup(app.path.with_name("copy.db"))


@pytest.mark.parametrize("kind", KINDS)
def test_an_application_works(run: Callable[[Main], None], kind: str, path: Path) -> None:
    """It writes and reads with many tasks, is cancelled, and closes."""

    async def main() -> None:
        door = Door(kind, path, _session)
        try:
            await asyncio.wait_for(program(await door.open()), 10)
        finally:
            await asyncio.wait_for(door.close(), 10)

    run(main)


def test_functions_work(run: Callable[[Main], None], path: Path) -> None:
    """run_write() and similar functions return, alone and together."""

    async def main() -> None:
        door = Door(FACADE, path, _session)
        try:
            app = await door.open()
            await app.write("CREATE TABLE t (id INTEGER PRIMARY KEY, x)")
            await asyncio.wait_for(functions(app), 10)
        finally:
            await asyncio.wait_for(door.close(), 10)

    run(main)


def test_one_application_over_two_runs(run: Callable[[Main], None], path: Path) -> None:
    """asyncio.run() is called twice, as by command-line tools, with separate engines each time."""

    async def main() -> None:
        door = Door(SWAP_IN, path, _session)
        try:
            app = await door.open()
            await app.write("CREATE TABLE IF NOT EXISTS t (x)", "INSERT INTO t VALUES (1)")
        finally:
            await door.close()

    run(main)
    run(main)


@pytest.mark.parametrize("kind", KINDS)
def test_debug_mode_names_the_task_that_is_slow(
    kind: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio's warning of a slow step is about the task, even after a statement."""

    async def slow(app: Application) -> None:
        await app.write("CREATE TABLE t (x)")
        async with app.transaction() as session:
            await session.execute(text("INSERT INTO t VALUES (1)"))
            ahead[0] += 0.3

    ahead = [0.0]  # seconds by which the clock of the loop has been advanced

    async def main() -> None:
        loop = asyncio.get_running_loop()
        now = loop.time
        loop.time = lambda: now() + ahead[0]  # type: ignore[method-assign]
        door = Door(kind, path, _session)
        try:
            app = await door.open()
            await asyncio.create_task(slow(app), name="the slow one")
        finally:
            await door.close()

    with caplog.at_level("WARNING", "asyncio"):
        _debug(main)
    took: list[Any] = [record.args for record in caplog.records if record.name == "asyncio"]
    step, seconds = max(took, key=lambda args: args[1])  # "Executing %s took %.3f seconds"
    assert seconds >= 0.3
    assert "the slow one" in step
