"""The engines of a ``ServerDatabase``."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import URL, Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from ..sessions.lean import LeanEngine
from ..turn.waits import WaitWatch
from .activity.snapshots import keep_fresh
from .activity.writers import WritersOut
from .commits import note_commits
from .connections.outages import Outages
from .connections.server import Server
from .endings import limit_endings
from .primary import PrimaryPool
from .replicas import ReplicaPool
from .rules.beginnings import begin_at_once
from .rules.levels import keep_read_only
from .rules.read_only import refuse_read_write
from .statements import OPTION, follow_statements
from .turn import take_turns


class Writes(enum.Enum):
    """How transactions that write are kept from interfering with each other."""

    IN_TURN = "in turn"
    """One after the other, under READ COMMITTED; the write turn is an advisory lock."""
    SERIALIZABLE = "serializable"
    """Concurrently, under SERIALIZABLE; some fail, and ``run_write()`` retries them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSettings:
    """What both engines of a database need to know. Times are in seconds."""

    primary: URL
    replicas: Sequence[URL]
    owner: object
    writes: Writes
    writers: int
    readers: int
    write_timeout: float
    read_timeout: float
    freshness_wait: float
    statement_timeout: float | None
    idle_warning: float | None
    wait_watch: WaitWatch
    options: Mapping[str, Any]
    connect_args: Mapping[str, Any]
    writers_out: WritersOut = field(default_factory=WritersOut)
    outages: Outages = field(default_factory=Outages)
    engines: list[Engine] = field(default_factory=list)

    def server(self, url: URL, capacity: int, *, is_primary: bool) -> Server:
        """Return a server; its connections are opened with the limits set, without a round trip."""
        limit = self.statement_timeout
        settings = {} if limit is None else {OPTION: str(max(1, int(limit * 1000)))}
        return Server(
            *(url, capacity, self.connect_args),
            is_primary=is_primary,
            settings=settings,
            outages=self.outages if is_primary else Outages(),
        )


def writer_engine(of: EngineSettings) -> AsyncEngine:
    """Return the engine for writes."""
    in_turn = of.writes is Writes.IN_TURN
    server = of.server(of.primary, 1 if in_turn else of.writers, is_primary=True)
    engine = _engine(
        of,
        of.primary,
        poolclass=PrimaryPool,
        servers=(server,),
        pool_timeout=of.write_timeout,
        isolation_level="READ COMMITTED" if in_turn else "SERIALIZABLE",
    )
    if in_turn:
        take_turns(engine.sync_engine)
    else:
        begin_at_once(engine.sync_engine)
    note_commits(engine.sync_engine, of.owner, of.writers_out)
    return engine


def reader_engine(of: EngineSettings) -> AsyncEngine:
    """Return the engine for reads: each transaction sees one snapshot and cannot write."""
    replicas = [of.server(url, of.readers, is_primary=False) for url in of.replicas]
    primary = of.server(of.primary, of.readers, is_primary=True)
    engine = _engine(
        of,
        (*of.replicas, of.primary)[0],
        poolclass=ReplicaPool,
        servers=(*replicas, primary),
        pool_timeout=of.read_timeout,
        freshness_wait=of.freshness_wait,
        writers_out=of.writers_out,
        isolation_level="REPEATABLE READ",
    )
    keep_read_only(engine.sync_engine)
    begin_at_once(engine.sync_engine)
    refuse_read_write(engine.sync_engine)
    keep_fresh(engine.sync_engine, of.owner)
    return engine


def _engine(of: EngineSettings, url: URL, **own: Any) -> AsyncEngine:
    options = {**of.options, "owner": of.owner, "wait_watch": of.wait_watch, **own}
    options |= {OPTION: of.statement_timeout, "idle_warning": of.idle_warning}
    engine = LeanEngine.create(url, engines=of.engines, **options)
    of.engines.append(engine.sync_engine)
    limit_endings(engine.sync_engine)
    follow_statements(engine.sync_engine)
    return engine
