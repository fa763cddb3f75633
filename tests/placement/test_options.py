"""``placement``: the user's choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from sa_sqlite_pool import ConfigurationError, SQLiteDatabase, SQLitePool
from sa_sqlite_pool.execution.loop_budget import LoopBudget
from sa_sqlite_pool.files.site import Site
from tests.conftest import MakeEngine
from tests.helpers import create_items
from tests.placement.work import LONG, READ, WRITE, Trace, learn, run


@pytest.mark.parametrize("door", ["facade", "engine"])
async def test_everything_in_the_thread(path: Path, make_engine: MakeEngine, door: str) -> None:
    trace = Trace()
    options: dict[str, Any] = {"placement": "thread", "on_connect": trace.on_connect}
    if door == "facade":
        async with SQLiteDatabase(path, **options) as db:
            await create_items(db.writer_engine)
            await learn(db.writer_engine, READ, WRITE)
    else:
        engine = make_engine(SQLitePool, **options)
        await create_items(engine)
        await learn(engine, READ, WRITE)
    assert not any(inline for _, inline in trace.runs)


async def test_nobody_waits_for_a_lap_without_need(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If all statements run in a thread, no task enters the loop's budget."""
    entered: list[LoopBudget] = []

    def enter_nowait(own: LoopBudget) -> bool:
        entered.append(own)
        return True

    monkeypatch.setattr(LoopBudget, "enter_nowait", enter_nowait)
    engine = make_engine(SQLitePool, placement="thread")
    await create_items(engine)
    assert entered == []


async def test_everything_inline(make_engine: MakeEngine) -> None:
    """This holds from the first run on, even for statements that sync or are long."""
    trace = Trace()
    engine = make_engine(
        SQLitePool, placement="inline", on_connect=trace.on_connect, pragmas={"synchronous": "FULL"}
    )
    await create_items(engine)
    with trace.recorded() as runs:
        assert await run(engine, WRITE, LONG) == [None, [50_000]]
    assert runs
    assert all(inline for _, inline in runs)


@pytest.mark.parametrize("wrong", ["loop", None, 1])
def test_a_wrong_placement(path: Path, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"placement must be one of 'auto', 'thread', 'in"):
        SQLiteDatabase(path, placement=wrong)
    with pytest.raises(ConfigurationError, match="placement must be one of"):
        create_async_engine("sqlite+aiosqlite://", poolclass=SQLitePool, placement=wrong)


async def test_a_disposed_engine_keeps_its_placement(make_engine: MakeEngine) -> None:
    trace = Trace()
    engine = make_engine(SQLitePool, placement="thread", on_connect=trace.on_connect)
    await create_items(engine)
    await engine.dispose()
    await learn(engine, READ)
    assert not any(inline for _, inline in trace.runs)


@pytest.mark.parametrize("role", ["auto", "reader"])
async def test_where_a_server_keeps_the_file(
    make_engine: MakeEngine, trace: Trace, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    """Any statement may have to wait for the server, even the end of a read."""
    monkeypatch.setattr(Site, "unreliable", True)
    engine = make_engine(SQLitePool, on_connect=trace.on_connect)
    await create_items(engine)
    with trace.recorded() as runs:
        await learn(engine.execution_options(sqlite_role=role), READ)
    assert runs
    assert not any(inline for _, inline in runs)
