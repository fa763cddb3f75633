"""Statistics of a database on servers."""

from __future__ import annotations

from dataclasses import dataclass, field

from .engines import ConnectionsStatistics, EngineStatistics
from .lines import TurnStatistics
from .snapshot import Snapshot, counter, find, rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatistics(Snapshot):
    """One server, as this process sees it.

    ``up`` is False for a replica that receives no reads because it did not respond, and for a
    primary that did not accept the last connection; ``failure`` gives the reason, ``seconds_down``
    the duration, and ``times_down`` the number of such outages. ``connections`` covers both
    engines, and ``reads`` counts checkouts for reads. ``position`` is a token up to which its reads
    are known to see all writes, or None: it is queried within ``fresh()`` blocks only.
    """

    name: str
    is_primary: bool
    up: bool = True
    failure: str | None = None
    seconds_down: float = 0.0
    times_down: int = counter()
    connections: ConnectionsStatistics = field(default_factory=ConnectionsStatistics)
    reads: int = counter()
    position: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerDatabaseStatistics(Snapshot):
    """A snapshot of a :class:`~sa_sqlite_pool.ServerDatabase` in this process.

    Counters only grow, and ``later - earlier`` contains what happened in between, as for
    :class:`~sa_sqlite_pool.DatabaseStatistics`. ``seconds`` is the age of the counters.

    ``turn`` is the write turn (with ``writes="in turn"``). ``engines`` are ``"reader"`` and
    ``"writer"``; all statements count as ``inline``, with the time until the server's response.
    ``servers`` are the replicas and the primary. ``retried`` counts how often ``run_write()`` and
    ``run_read()`` have run a function again.
    """

    name: str
    seconds: float = counter(0.0)
    turn: TurnStatistics = field(default_factory=TurnStatistics)
    engines: tuple[EngineStatistics, ...] = rows("role")
    servers: tuple[ServerStatistics, ...] = rows("name")
    retried: int = counter()

    def engine(self, role: str) -> EngineStatistics:
        """Return the statistics of the engine of ``role``; raise ``KeyError`` if it has none."""
        return find(self.engines, "role", role)

    def server(self, name: str) -> ServerStatistics:
        """Return the statistics of the server ``name``; raise ``KeyError`` if there is none."""
        return find(self.servers, "name", name)
