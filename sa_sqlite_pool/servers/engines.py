"""The engines of a ``ServerDatabase``."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import URL, Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine

from ..errors import ConfigurationError
from ..sessions.lean import LeanEngine
from ..turn.waits import WaitWatch
from .commits import note_commits
from .primary import PrimaryPool
from .replicas import ReplicaPool
from .server import Server
from .statements import follow_statements
from .turn import take_turns


class Writes(enum.Enum):
    """How transactions that write keep out of each other's way."""

    IN_TURN = "in turn"
    """One after the other, under READ COMMITTED: an advisory lock is the write turn."""
    SERIALIZABLE = "serializable"
    """At the same time, under SERIALIZABLE; some fail, and ``run_write()`` runs them again."""

    @classmethod
    def parse(cls, value: object) -> Writes:
        """Return the way named ``value``, or raise :class:`~sa_sqlite_pool.ConfigurationError`."""
        try:
            return cls(value)
        except ValueError:
            names = " or ".join(repr(way.value) for way in cls)
            raise ConfigurationError(f"writes must be {names}, not {value!r}") from None


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
    wait_watch: WaitWatch
    options: Mapping[str, Any]
    connect_args: Mapping[str, Any]


def writer_engine(of: EngineSettings) -> AsyncEngine:
    """Return the engine for writes."""
    in_turn = of.writes is Writes.IN_TURN
    server = Server(of.primary, 1 if in_turn else of.writers, of.connect_args, is_primary=True)
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
    note_commits(engine.sync_engine, of.owner)
    return engine


def reader_engine(of: EngineSettings) -> AsyncEngine:
    """Return the engine for reads: one snapshot each, and nothing can be written."""
    replicas = [Server(url, of.readers, of.connect_args, is_primary=False) for url in of.replicas]
    primary = Server(of.primary, of.readers, of.connect_args, is_primary=True)
    engine = _engine(
        of,
        (*of.replicas, of.primary)[0],
        poolclass=ReplicaPool,
        servers=(*replicas, primary),
        pool_timeout=of.read_timeout,
        freshness_wait=of.freshness_wait,
        isolation_level="REPEATABLE READ",
    )
    event.listen(engine.sync_engine, "connect", _read_only(engine.sync_engine))
    return engine


def _engine(of: EngineSettings, url: URL, **own: Any) -> AsyncEngine:
    options = {**of.options, "owner": of.owner, "wait_watch": of.wait_watch, **own}
    engine = LeanEngine.create(url, **options)
    follow_statements(engine.sync_engine)
    return engine


def _read_only(engine: Engine) -> Any:
    def connect(dbapi_connection: Any, _record: object) -> None:
        # Both drivers say it in their BEGIN; nothing is sent here.
        engine.dialect.set_readonly(dbapi_connection, True)  # type: ignore[attr-defined]

    return connect
