"""A checkout fails inside SQLAlchemy, before a task has received it: its permit is released."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.pool.base import _ConnectionFairy

from tests.doors.test_lost_checkouts import keep_one_in_a_listener
from tests.postgresql import App
from tests.servers.doing import ONE
from tests.servers.test_frozen import DOORS


@pytest.mark.parametrize("name", ["db.write()", "db.read()"])
async def test_the_next_task_has_it(app: App, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It acquires the permit, as on SQLite; see ``tests/doors/test_lost_checkouts.py``."""
    init, left = _ConnectionFairy.__init__, [MemoryError]

    def begin(proxied: Any, *args: Any, **kw: Any) -> None:
        if left:
            raise left.pop()
        init(proxied, *args, **kw)

    async with app.open(replicas=[], write_timeout=5) as db:
        with monkeypatch.context() as patch:
            patch.setattr(_ConnectionFairy, "__init__", begin)
            with pytest.raises(MemoryError):
                async with DOORS[name](db) as session:
                    await session.execute(ONE)
        assert db.writer_engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        assert db.reader_engine.pool.checkedout() == 0  # type: ignore[attr-defined]

        async def work() -> None:
            async with DOORS[name](db) as session:
                await session.execute(ONE)

        await asyncio.wait_for(work(), 10)


@pytest.mark.parametrize("name", ["the writer engine", "the reader engine"])
async def test_two_listeners_that_fail(app: App, name: str) -> None:
    """One listener of ``checkout``, which keeps the proxy, then one of ``close``.

    On stock with SQLAlchemy 2.0.53, the slot is lost.
    """
    async with app.open(replicas=[], readers=1, write_timeout=5, read_timeout=5) as db:
        engine = db.writer_engine if name == "the writer engine" else db.reader_engine
        kept, left = list[object](), ["checkout", "close"]

        def fail(*arguments: object) -> None:
            if left:
                kept.extend(arguments)
                raise ZeroDivisionError(left.pop(0))

        for event_name in list(left):
            event.listen(engine.sync_engine, event_name, fail)
        with pytest.raises(ZeroDivisionError):
            await engine.connect()
        assert not left
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        async with engine.connect() as connection:
            assert await connection.scalar(ONE) == 1
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_one_that_a_listener_keeps(app: App) -> None:
    """A connection that a listener has checked out during a failing checkout remains its own."""
    async with app.open(replicas=[], readers=3) as db:
        await keep_one_in_a_listener(db.reader_engine)
