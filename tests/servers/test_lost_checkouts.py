"""A checkout that fails inside SQLAlchemy, before it has a proxy: the turn comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy.pool.base import _ConnectionFairy

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
