"""Statistics of all pools of one database, combined from the counts of each part."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from ..errors import ConfigurationError, a_type
from ..settings import Role
from ..stats.counts import ConnectionCounts
from ..stats.database import DatabaseStatistics, FunctionsStatistics
from ..stats.engines import ConnectionsStatistics, EngineStatistics, TransactionsStatistics
from ..system.clock import time
from .base import FairPool


def statistics(engine: AsyncEngine | Engine) -> DatabaseStatistics:
    """Return the statistics of an engine with a pool of this package, past and present.

    They cover the engine, and what all engines of the process on its file share: the write turn,
    read transactions, the log. This reads a few bytes of the ``-wal`` file, and the system's list
    of locks if other processes wait in line. It never waits, and any thread may call it.

    Raise :class:`~sa_sqlite_pool.ConfigurationError` for an engine with another pool.
    """
    pool = engine.pool
    if not isinstance(pool, FairPool):
        raise ConfigurationError(
            "statistics() requires an engine created with poolclass=SQLitePool, ReaderPool or "
            f"WriterPool; this one has {a_type(pool)}"
        )
    return statistics_of([pool])


def statistics_of(pools: Sequence[FairPool]) -> DatabaseStatistics:
    """Return the statistics of pools on one file."""
    now, first = time.monotonic(), pools[0]
    file, keeper = first.database_file, next(filter(None, (pool.keeper for pool in pools)), None)
    snapshots = file.snapshots.statistics()
    numbers = [pool.counts.numbers() for pool in pools]
    readers = [one for pool, one in zip(pools, numbers, strict=True) if pool.role is Role.READER]
    others = [one for pool, one in zip(pools, numbers, strict=True) if pool.role is not Role.READER]
    found = DatabaseStatistics(
        name=file.turn.name,
        seconds=now - min(pool.counts.began for pool in pools),
        turn=file.turn.statistics(),
        engines=tuple(_engine(pool, one, now) for pool, one in zip(pools, numbers, strict=True)),
        reading=snapshots.open,
        oldest_reader=snapshots.oldest,
        gaps=snapshots.gaps,
        functions=FunctionsStatistics(
            reads=sum(one.functions for one in readers),
            read_hops=sum(one.hops for one in readers),
            writes=sum(one.functions for one in others),
            groups=sum(one.hops for one in others),
            largest_group=max((one.most_together for one in others), default=0),
            reads_timed_out=_timed_out(pool for pool in pools if pool.role is Role.READER),
            writes_timed_out=_timed_out(pool for pool in pools if pool.role is not Role.READER),
        ),
    )
    if keeper is None:
        return found
    return replace(found, checkpoints=keeper.checkpointing.statistics(), wal=keeper.statistics())


def _timed_out(pools: Iterable[FairPool]) -> int:
    return sum(pool.counts.functions_timed_out for pool in pools)


def _engine(pool: FairPool, numbers: ConnectionCounts, now: float) -> EngineStatistics:
    """Return the statistics of one pool; ``now`` is in monotonic seconds."""
    counts, line = pool.counts, pool.line
    return EngineStatistics(
        role=pool.role.value,
        connections=ConnectionsStatistics(
            capacity=None if line.capacity == sys.maxsize else line.capacity,
            on_loan=len(pool.checkouts),
            at_rest=pool.at_rest,
            kept=pool.kept,
            opened=counts.opened,
            thrown_away=numbers.thrown_away,
            kept_after_all=numbers.kept,
            checkouts=counts.checkouts,
        ),
        holders=tuple(permit.snapshot(now) for permit in pool.checkouts.permits),
        waiting=line.waiting,
        waits=line.waits.snapshot(),
        statements=counts.statements(),
        transactions=TransactionsStatistics(
            reads=numbers.reads,
            commits=numbers.commits,
            rollbacks=numbers.rollbacks,
            lost=numbers.lost,
            commit_seconds=numbers.commit_seconds,
            longest_commit_seconds=numbers.longest_commit,
        ),
    )
