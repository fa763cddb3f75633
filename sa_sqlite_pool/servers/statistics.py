"""Statistics of the pools of a ``ServerDatabase``, combined from what each has counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..freshness import token_of
from ..stats.engines import ConnectionsStatistics, EngineStatistics
from ..stats.lines import TurnStatistics, Waits
from ..stats.servers import ServerDatabaseStatistics, ServerStatistics
from ..system.clock import time
from .connections.server import Server
from .pool import ServerPool
from .primary import PrimaryPool
from .replicas import ReplicaPool


def statistics_of(
    readers: ReplicaPool, writers: PrimaryPool, retried: int
) -> ServerDatabaseStatistics:
    """Return the statistics of a database. It may be called in any thread."""
    now = time.monotonic()
    return ServerDatabaseStatistics(
        name=writers.primary.name,
        seconds=now - min(readers.counts.engine.began, writers.counts.engine.began),
        turn=_turn(writers, now),
        engines=(_engine("reader", readers, now), _engine("writer", writers, now)),
        servers=(
            *(_server([server], now) for server in readers.replicas),
            _server([readers.primary, writers.primary], now),
        ),
        retried=retried,
    )


def _turn(pool: PrimaryPool, now: float) -> TurnStatistics:
    if not pool.in_turn:
        return TurnStatistics()
    line = pool.primary.line
    held = line.permits
    return TurnStatistics(
        holder=held[0].snapshot(now) if held else None,
        waiting=line.waiting,
        waits=line.waits.snapshot(),
        self_deadlocks=pool.counts.self_deadlocks,
        shared=True,
        waits_for_processes=pool.counts.process_waits.snapshot(),
    )


def _engine(role: str, pool: ServerPool, now: float) -> EngineStatistics:
    lines = [server.line for server in pool.servers]
    permits = sorted(
        (permit for line in lines for permit in line.permits), key=lambda permit: permit.since
    )
    return EngineStatistics(
        role=role,
        connections=_connections(pool.servers),
        holders=tuple(permit.snapshot(now) for permit in permits),
        waiting=sum(line.waiting for line in lines),
        waits=_added(line.waits.snapshot() for line in lines),
        statements=pool.counts.engine.statements(),
        transactions=pool.counts.transactions(),
    )


def _server(of_engines: Sequence[Server], now: float) -> ServerStatistics:
    """Return the statistics of a server from each engine's object for it, the reader's first."""
    reads = of_engines[0]
    since, failure = reads.outages.since, reads.outages.failure
    return ServerStatistics(
        name=reads.name,
        is_primary=reads.is_primary,
        up=since is None,
        failure=None if failure is None else str(failure) or type(failure).__name__,
        seconds_down=0.0 if since is None else now - since,
        times_down=reads.outages.times,
        connections=_connections(of_engines),
        reads=reads.checkouts,
        position=token_of(max(one.shows for one in of_engines)),
    )


def _connections(servers: Sequence[Server]) -> ConnectionsStatistics:
    return ConnectionsStatistics(
        capacity=sum(server.capacity for server in servers),
        on_loan=sum(server.in_use for server in servers),
        at_rest=sum(len(server.at_rest) for server in servers),
        opened=sum(server.opened for server in servers),
        thrown_away=sum(server.thrown_away for server in servers),
        checkouts=sum(server.checkouts for server in servers),
    )


def _added(all_of_them: Iterable[Waits]) -> Waits:
    waits = tuple(all_of_them)
    return Waits(
        at_once=sum(one.at_once for one in waits),
        waited=sum(one.waited for one in waits),
        timed_out=sum(one.timed_out for one in waits),
        cancelled=sum(one.cancelled for one in waits),
        sent_away=sum(one.sent_away for one in waits),
        seconds=sum(one.seconds for one in waits),
        longest_seconds=max(one.longest_seconds for one in waits),
        histogram=tuple(map(sum, zip(*(one.histogram for one in waits), strict=True))),
    )
