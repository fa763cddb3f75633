"""Connections from a pool that are used outside SQLAlchemy's greenlets."""

from __future__ import annotations

from sqlalchemy.pool import PoolProxiedConnection

from ..compat.greenlets import greenlet_spawn
from ..driver.executor import Executor


async def give_back(fairy: PoolProxiedConnection, executor: Executor) -> None:
    """Check the connection in; if its thread still uses it, as soon as the thread has finished."""
    if executor.worker.at_rest:
        await greenlet_spawn(fairy.close)
    else:
        executor.transaction.cancelled = True
        fairy.invalidate()
