"""The sketch in ``docs/upstream.md`` runs, and works as the page says."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import weakref
from functools import partial
from typing import Any

import pytest
from greenlet import GreenletExit, getcurrent, greenlet
from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only

from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, amounts, create_items
from tests.test_docs import blocks

VARIABLE = contextvars.ContextVar("variable", default="nothing")


def sketch() -> dict[str, Any]:
    names = {
        "Any": Any,
        "exc": exc,
        "partial": partial,
        "sys": sys,
        "threading": threading,
        "GreenletExit": GreenletExit,
        "getcurrent": getcurrent,
        "greenlet": greenlet,
    }
    exec("from __future__ import annotations\n" + blocks("upstream.md", "python")[0], names)
    return names


NAMES = sketch()
spawn = NAMES["greenlet_spawn"]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, make_engine: MakeEngine) -> AsyncEngine:
    for name in ("engine", "session", "result"):
        module = sys.modules[f"sqlalchemy.ext.asyncio.{name}"]
        monkeypatch.setattr(module, "greenlet_spawn", spawn)
    return make_engine()


async def test_under_sqlalchemy(installed: AsyncEngine) -> None:
    await create_items(installed)
    with pytest.raises(ZeroDivisionError):
        async with installed.begin() as connection:
            await connection.execute(UPDATE_FIRST)
            raise ZeroDivisionError
    assert await amounts(installed) == [0, 0, 0]
    assert len(NAMES["_idle"].greenlets) < 4


async def test_what_the_page_says() -> None:
    """The sketch handles parents, context variables, errors, references and abandoned work."""

    class Thing:
        pass

    def work(thing: Thing) -> Any:
        assert VARIABLE.get() == "mine"
        await_only(asyncio.sleep(0))
        return thing

    VARIABLE.set("mine")
    thing = Thing()
    reference = weakref.ref(thing)
    assert await spawn(work, thing) is thing
    with pytest.raises(ZeroDivisionError):
        await spawn(lambda one: 1 / 0, thing)
    del thing
    assert reference() is None
    with pytest.raises(exc.AwaitRequired):
        await spawn(int, _require_await=True)
    used = await spawn(getcurrent)
    assert await spawn(getcurrent) is used

    ended: list[str] = []

    def left() -> None:
        try:
            await_only(asyncio.Event().wait())
        finally:
            ended.append("by GreenletExit or GeneratorExit")

    task = asyncio.ensure_future(spawn(left))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended
    gc.collect()
    assert all(not one.dead for one in NAMES["_idle"].greenlets)
