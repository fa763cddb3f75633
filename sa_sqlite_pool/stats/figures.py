"""The figures of a database that monitoring systems record, in one table for all of them.

A name is that of OpenTelemetry, without ``sa_sqlite_pool.``; Prometheus' is made of it. No
attribute has more values than are written here: no SQL, no task, no line of the application.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from .database import DatabaseStatistics
from .engines import EngineStatistics
from .lines import Waits

PREFIX: Final = "sa_sqlite_pool"


class FigureKind(enum.Enum):
    """What a figure is to a monitoring system."""

    COUNTER = "counter"
    """It only grows, and begins anew with the process."""
    GAUGE = "gauge"
    """The state at this moment."""
    HISTOGRAM = "histogram"
    """The number of waits by how long they have lasted."""


Sample = tuple[tuple[str, ...], float | Waits]
"""The values of the attributes, and the value: of a histogram, the waits."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: its name, unit (https://ucum.org) and meaning, and how it is read.

    ``attributes`` are the names of what its samples are told apart by, beside the database.
    """

    name: str
    kind: FigureKind
    unit: str
    meaning: str
    attributes: tuple[str, ...]
    read: Callable[[DatabaseStatistics], Iterator[Sample]]


FIGURES: Final[list[Figure]] = []

_COUNTER, _GAUGE, _HISTOGRAM = FigureKind.COUNTER, FigureKind.GAUGE, FigureKind.HISTOGRAM
_Read = Callable[[DatabaseStatistics], float | Waits | None]
_ReadEngine = Callable[[EngineStatistics], float | Waits | None]


def _add(
    name: str,
    kind: FigureKind,
    unit: str,
    meaning: str,
    attributes: tuple[str, ...],
    read: Callable[[DatabaseStatistics], Iterator[Sample]],
) -> None:
    FIGURES.append(Figure(name, kind, unit, meaning, attributes, read))


def _of_database(name: str, kind: FigureKind, unit: str, meaning: str, read: _Read) -> None:
    """Add a figure without attributes; where ``read`` returns None, there is none."""

    def samples(found: DatabaseStatistics) -> Iterator[Sample]:
        if (value := read(found)) is not None:
            yield (), value

    _add(name, kind, unit, meaning, (), samples)


def _by(
    attribute: str,
    name: str,
    unit: str,
    meaning: str,
    **reads: Callable[[DatabaseStatistics], float],
) -> None:
    """Add a counter with one attribute, whose values are the keywords."""

    def samples(found: DatabaseStatistics) -> Iterator[Sample]:
        for value, read in reads.items():
            yield (value,), read(found)

    _add(name, _COUNTER, unit, meaning, (attribute,), samples)


def _of_engines(
    name: str, kind: FigureKind, unit: str, meaning: str, read: _ReadEngine, *, line: bool = False
) -> None:
    """Add a figure of each engine. ``line``: of the line for connections, a writer's is the turn's.

    Where ``read`` returns None, there is none.
    """

    def samples(found: DatabaseStatistics) -> Iterator[Sample]:
        for engine in found.engines:
            value = read(engine)
            if value is not None and not (line and engine.role == "writer"):
                yield (engine.role,), value

    _add(name, kind, unit, meaning, ("role",), samples)


def _of_engines_by(
    attribute: str,
    name: str,
    kind: FigureKind,
    unit: str,
    meaning: str,
    **reads: Callable[[EngineStatistics], float],
) -> None:
    """Add a figure of each engine with one attribute more, whose values are the keywords."""

    def samples(found: DatabaseStatistics) -> Iterator[Sample]:
        for engine in found.engines:
            for value, read in reads.items():
                yield (engine.role, value), read(engine)

    _add(name, kind, unit, meaning, ("role", attribute), samples)


def _outcomes(waits: Waits) -> Iterator[tuple[str, float]]:
    in_vain = waits.timed_out + waits.cancelled + waits.sent_away
    yield "at_once", waits.at_once
    yield "waited", max(0, waits.waited - in_vain)
    yield "timed_out", waits.timed_out
    yield "cancelled", waits.cancelled
    yield "sent_away", waits.sent_away


def _of_turn(name: str, meaning: str, read: Callable[[DatabaseStatistics], Waits]) -> None:
    def samples(found: DatabaseStatistics) -> Iterator[Sample]:
        for outcome, value in _outcomes(read(found)):
            yield (outcome,), value

    _add(name, _COUNTER, "{request}", meaning, ("outcome",), samples)


def _requests_for_connections(found: DatabaseStatistics) -> Iterator[Sample]:
    for engine in found.engines:
        if engine.role != "writer":
            for outcome, value in _outcomes(engine.waits):
                yield (engine.role, outcome), value


# -- the write turn -----------------------------------------------------------------------------

_of_database(
    "turn.held",
    _GAUGE,
    "s",
    "How long the holder of the write turn has had it; 0 if it is free",
    lambda found: 0.0 if found.turn.holder is None else found.turn.holder.seconds,
)
_of_database(
    "turn.waiting",
    _GAUGE,
    "{task}",
    "Tasks of this process in line for the write turn",
    lambda found: found.turn.waiting,
)
_of_database(
    "turn.wait",
    _HISTOGRAM,
    "s",
    "How long tasks that had to wait for the write turn have waited",
    lambda found: found.turn.waits,
)
_of_turn(
    "turn.requests",
    "Requests for the write turn, by outcome",
    lambda found: found.turn.waits,
)
_of_database(
    "turn.self_deadlocks",
    _COUNTER,
    "{task}",
    "Tasks that would have waited for themselves and got a TurnAlreadyHeldError",
    lambda found: found.turn.self_deadlocks,
)
_of_database(
    "turn.process_wait",
    _HISTOGRAM,
    "s",
    "How long holders of the write turn have waited for other processes",
    lambda found: found.turn.waits_for_processes if found.turn.shared else None,
)
_of_turn(
    "turn.process_requests",
    "Requests for the turn between processes, by outcome",
    lambda found: found.turn.waits_for_processes,
)

# -- connections --------------------------------------------------------------------------------

_of_engines_by(
    "state",
    "connections",
    _GAUGE,
    "{connection}",
    "Open connections: on loan, at rest in the pool, or kept warm outside it",
    on_loan=lambda engine: engine.connections.on_loan,
    at_rest=lambda engine: engine.connections.at_rest,
    kept=lambda engine: engine.connections.kept,
)
_of_engines(
    "connections.max",
    _GAUGE,
    "{connection}",
    "The most connections that may be on loan; absent if there is no limit",
    lambda engine: engine.connections.capacity,
)
_of_engines(
    "connections.held",
    _GAUGE,
    "s",
    "How long the longest checkout has lasted that is still open; 0 if there is none",
    lambda engine: max((holder.seconds for holder in engine.holders), default=0.0),
)
_of_engines(
    "connections.waiting",
    _GAUGE,
    "{task}",
    "Tasks in line for a connection; those of a writer are in line for the turn",
    lambda engine: engine.waiting,
    line=True,
)
_of_engines(
    "connections.wait",
    _HISTOGRAM,
    "s",
    "How long tasks that had to wait for a connection have waited",
    lambda engine: engine.waits,
    line=True,
)
_add(
    "connections.requests",
    _COUNTER,
    "{request}",
    "Requests for a connection, by outcome",
    ("role", "outcome"),
    _requests_for_connections,
)
_of_engines(
    "connections.checkouts",
    _COUNTER,
    "{checkout}",
    "Checkouts of connections",
    lambda engine: engine.connections.checkouts,
)
_of_engines(
    "connections.opened",
    _COUNTER,
    "{connection}",
    "Connections that were opened",
    lambda engine: engine.connections.opened,
)
_of_engines(
    "connections.thrown_away",
    _COUNTER,
    "{connection}",
    "Connections that SQLAlchemy threw away, after a cancellation, say",
    lambda engine: engine.connections.thrown_away,
)
_of_engines(
    "connections.kept_after_all",
    _COUNTER,
    "{connection}",
    "Connections among those thrown away that were good, and kept",
    lambda engine: engine.connections.kept_after_all,
)

# -- statements and transactions ----------------------------------------------------------------

_of_engines_by(
    "placement",
    "statements",
    _COUNTER,
    "{statement}",
    "Statements that have run: inline on the event loop, or in a thread",
    inline=lambda engine: engine.statements.inline,
    thread=lambda engine: engine.statements.in_thread,
)
_of_engines(
    "statements.too_long_inline",
    _COUNTER,
    "{statement}",
    "Statements that took longer on the event loop than is good for it",
    lambda engine: engine.statements.too_long_inline,
)
_of_engines(
    "statements.failed",
    _COUNTER,
    "{statement}",
    "Statements that raised an error",
    lambda engine: engine.statements.failed,
)
_of_engines(
    "statements.duration",
    _COUNTER,
    "s",
    "Time of statements in SQLite, without waits",
    lambda engine: engine.statements.seconds,
)
_of_engines_by(
    "outcome",
    "transactions",
    _COUNTER,
    "{transaction}",
    "Transactions that have ended: they only read, committed, rolled back, or SQLite ended them",
    read=lambda engine: engine.transactions.reads,
    commit=lambda engine: engine.transactions.commits,
    rollback=lambda engine: engine.transactions.rollbacks,
    lost=lambda engine: engine.transactions.lost,
)
_of_engines(
    "commits.duration",
    _COUNTER,
    "s",
    "Time in COMMIT, with the disk's",
    lambda engine: engine.transactions.commit_seconds,
)

# -- functions ----------------------------------------------------------------------------------

_by(
    "kind",
    "functions",
    "{function}",
    "Functions that run_read() and run_write() have run",
    read=lambda found: found.functions.reads,
    write=lambda found: found.functions.writes,
)
_by(
    "kind",
    "functions.hops",
    "{hop}",
    "Hops to a thread in which they have run: for writes, each with one COMMIT",
    read=lambda found: found.functions.read_hops,
    write=lambda found: found.functions.groups,
)

_by(
    "kind",
    "functions.timed_out",
    "{function}",
    "Functions that have not run, since their wait was too long",
    read=lambda found: found.functions.reads_timed_out,
    write=lambda found: found.functions.writes_timed_out,
)

# -- readers and the log ------------------------------------------------------------------------

_of_database(
    "readers",
    _GAUGE,
    "{transaction}",
    "Read transactions that are open",
    lambda found: found.reading,
)
_of_database(
    "readers.oldest",
    _GAUGE,
    "s",
    "The age of the oldest read transaction; 0 if there is none",
    lambda found: 0.0 if found.oldest_reader is None else found.oldest_reader.seconds,
)
_of_database(
    "wal.size",
    _GAUGE,
    "By",
    "The size of the -wal file; absent without a write-ahead log, as all of the log's",
    lambda found: None if found.wal is None else found.wal.size,
)
_of_database(
    "wal.soft_limit",
    _GAUGE,
    "By",
    "The size above which a checkpoint runs in a quiet moment; absent if there is none",
    lambda found: None if found.wal is None else found.wal.soft_limit,
)
_of_database(
    "wal.limit",
    _GAUGE,
    "By",
    "The size above which readers are asked to wait for a checkpoint; absent if there is none",
    lambda found: None if found.wal is None else found.wal.limit,
)
_of_database(
    "wal.frames",
    _GAUGE,
    "{frame}",
    "Frames in use in the log, each a page",
    lambda found: None if found.wal is None else found.wal.frames,
)
_of_database(
    "wal.frames_checkpointed",
    _GAUGE,
    "{frame}",
    "Frames among them that were in the database, too, after the last checkpoint of this process",
    lambda found: None if found.wal is None else found.wal.checkpointed,
)
_of_database(
    "wal.held_back",
    _GAUGE,
    "1",
    "1 if something held the last checkpoint back, else 0",
    lambda found: None if found.wal is None else float(found.wal.held_back_by is not None),
)
_of_database(
    "wal.reset_bug",
    _GAUGE,
    "1",
    "1 if this SQLite has the WAL-reset bug, else 0",
    lambda found: None if found.wal is None else float(found.wal.reset_bug),
)
_of_database(
    "wal.outside_writers",
    _GAUGE,
    "{process}",
    "Programs that write and do not know this package",
    lambda found: None if found.wal is None else len(found.wal.outside_writers),
)
_by(
    "outcome",
    "checkpoints",
    "{checkpoint}",
    "Checkpoints of this process, by outcome",
    moved_all=lambda found: found.checkpoints.moved_all,
    truncated=lambda found: found.checkpoints.truncated,
    held_back=lambda found: found.checkpoints.held_back,
    busy=lambda found: found.checkpoints.busy,
)
_of_database(
    "checkpoints.duration",
    _COUNTER,
    "s",
    "Time that checkpoints have kept writers waiting",
    lambda found: found.checkpoints.seconds,
)
_of_database(
    "gaps",
    _COUNTER,
    "{gap}",
    "Gaps between read transactions, in which the log can begin anew",
    lambda found: found.gaps.gaps,
)
_of_database(
    "gaps.duration",
    _COUNTER,
    "s",
    "Time of the gaps",
    lambda found: found.gaps.seconds,
)
_of_database(
    "gaps.readers_waited",
    _COUNTER,
    "{transaction}",
    "Reads that have waited for the end of a gap",
    lambda found: found.gaps.readers_waited,
)
