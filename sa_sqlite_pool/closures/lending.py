"""Connections from a pool that work outside SQLAlchemy's greenlets."""

from __future__ import annotations

from sqlalchemy.pool import PoolProxiedConnection

from ..compat.greenlets import greenlet_spawn
from ..driver.executor import Executor


async def give_back(fairy: PoolProxiedConnection, executor: Executor) -> None:
    """Bring it back to its pool; where its thread has not let go of it yet, as soon as it has."""
    if executor.worker.at_rest:
        await greenlet_spawn(fairy.close)
    else:
        executor.transaction.cancelled = True
        fairy.invalidate()
