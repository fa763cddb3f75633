"""The pairs that are compared: a door of this package, and the least work possible behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..asked.cores import PROCESS_TIME
from ..loads import LOADS
from ..loads.base import Load, Plan
from ..ways import catalogue
from ..ways.asynchronous import through
from ..ways.contenders import SYNCHRONOUS, Concurrent, Contender
from . import engines, prepared, threads

_ENGINE, _SQLALCHEMYS = "least, engine", "least, SQLAlchemy's engine"
_THREAD, _AT_ONCE = "least, thread", "least, thread that tells at once"
_PREPARED = "least, prepared"

_LEAST: Mapping[str, tuple[Contender, ...]] = {
    "point-reads": (
        Concurrent(_ENGINE, through(engines.InLaps, engines.reads)),
        Concurrent(_SQLALCHEMYS, through(engines.InLaps, engines.reads_of_sqlalchemy)),
        Concurrent(_THREAD, threads.reads),
        Concurrent(_AT_ONCE, threads.reads_told_at_once),
        Concurrent(_PREPARED, prepared.reads),
    ),
    "orm-get": (
        Concurrent(_ENGINE, through(engines.LeanSessionsInLaps, engines.reads)),
        Concurrent(_SQLALCHEMYS, through(engines.SessionsInLaps, engines.reads_of_sqlalchemy)),
        Concurrent(_THREAD, threads.session_reads),
    ),
    "one-row-writes": (
        Concurrent(_ENGINE, through(engines.InTurn, engines.writes)),
        Concurrent(_SQLALCHEMYS, through(engines.InTurn, engines.writes_of_sqlalchemy)),
        Concurrent(_THREAD, threads.writes),
        Concurrent(_AT_ONCE, threads.writes_told_at_once),
    ),
    "session-writes": (Concurrent(_THREAD, threads.session_writes),),
}
"""The contenders, by load."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One comparison; ``least`` and ``ours`` are names of contenders of ``load``."""

    name: str
    load: str
    least: str
    ours: str

    @property
    def asked(self) -> float | None:
        """The target for process time, as a multiple of synchronous's; None if there is none."""
        return PROCESS_TIME.get((self.load, self.ours))


KINDS: tuple[Kind, ...] = (
    Kind("reader_engine", "point-reads", _ENGINE, catalogue.ENGINES),
    Kind("drop-in imports, a read", "point-reads", _ENGINE, catalogue.DROP_IN),
    Kind("SQLAlchemy's engine, a read", "point-reads", _SQLALCHEMYS, catalogue.SWAP_IN),
    Kind("run_read_core", "point-reads", _THREAD, catalogue.RUN_READ_CORE),
    Kind("run_read_core, told at once", "point-reads", _AT_ONCE, catalogue.RUN_READ_CORE),
    Kind("prepared read", "point-reads", _PREPARED, catalogue.PREPARED),
    Kind("db.read(), session.get()", "orm-get", _ENGINE, catalogue.FACADE),
    Kind("SQLAlchemy's session, session.get()", "orm-get", _SQLALCHEMYS, catalogue.SWAP_IN),
    Kind("run_read, session.get()", "orm-get", _THREAD, catalogue.RUN_READ),
    Kind("writer_engine", "one-row-writes", _ENGINE, catalogue.ENGINES),
    Kind("drop-in imports, a write", "one-row-writes", _ENGINE, catalogue.DROP_IN),
    Kind("SQLAlchemy's engine, a write", "one-row-writes", _SQLALCHEMYS, catalogue.SWAP_IN),
    Kind("run_write_core", "one-row-writes", _THREAD, catalogue.RUN_WRITE_CORE),
    Kind("run_write_core, told at once", "one-row-writes", _AT_ONCE, catalogue.RUN_WRITE_CORE),
    Kind("run_write", "session-writes", _THREAD, catalogue.RUN_WRITE),
)
"""Each door with a target for process time, and the least with SQLAlchemy's asyncio classes."""


def loads() -> list[Load]:
    """Return the loads of all kinds; in each round, synchronous, the least and ours take turns."""
    return [_load(name, least) for name, least in _LEAST.items()]


def _load(name: str, least: tuple[Contender, ...]) -> Load:
    [load] = LOADS[name](Plan())
    wanted = {SYNCHRONOUS, *(kind.ours for kind in KINDS if kind.load == name)}
    ours = [one for one in load.contenders if one.name in wanted]
    ours.sort(key=lambda one: one.name != SYNCHRONOUS)  # the baseline of all comparisons
    return replace(load, contenders=(*ours, *least))
