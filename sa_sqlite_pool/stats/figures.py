"""The figures of a database that monitoring systems record, in one table for all systems.

Each name is the OpenTelemetry name without ``sa_sqlite_pool.``; the Prometheus name is derived from
it. Attributes take only the values listed here: no SQL, no task, no line of the application.
"""

from __future__ import annotations

from typing import Final

from .figure import COUNTER, GAUGE, HISTOGRAM, Figure, of_database, of_engines, outcomes

PREFIX: Final = "sa_sqlite_pool"

FIGURES: Final[tuple[Figure, ...]] = (
    # -- the write turn
    of_database(
        "turn.held",
        GAUGE,
        "s",
        "Time for which the current holder has held the write turn; 0 if it is free",
        lambda found: 0.0 if found.turn.holder is None else found.turn.holder.seconds,
    ),
    of_database(
        "turn.waiting",
        GAUGE,
        "{task}",
        "Tasks of this process waiting in line for the write turn",
        lambda found: found.turn.waiting,
    ),
    of_database(
        "turn.wait",
        HISTOGRAM,
        "s",
        "Time that tasks spent waiting for the write turn",
        lambda found: found.turn.waits,
    ),
    of_database(
        "turn.requests",
        COUNTER,
        "{request}",
        "Requests for the write turn, by outcome",
        lambda found: outcomes(found.turn.waits),
        by="outcome",
    ),
    of_database(
        "turn.self_deadlocks",
        COUNTER,
        "{task}",
        "Tasks that would have waited for themselves and got a TurnAlreadyHeldError",
        lambda found: found.turn.self_deadlocks,
    ),
    of_database(
        "turn.process_wait",
        HISTOGRAM,
        "s",
        "Time that holders of the write turn spent waiting for other processes",
        lambda found: found.turn.waits_for_processes if found.turn.shared else None,
    ),
    of_database(
        "turn.process_requests",
        COUNTER,
        "{request}",
        "Requests for the turn between processes, by outcome",
        lambda found: outcomes(found.turn.waits_for_processes),
        by="outcome",
    ),
    # -- connections
    of_engines(
        "connections",
        GAUGE,
        "{connection}",
        "Open connections: on loan, at rest in the pool, or kept warm outside it",
        lambda engine: {
            "on_loan": engine.connections.on_loan,
            "at_rest": engine.connections.at_rest,
            "kept": engine.connections.kept,
        },
        by="state",
    ),
    of_engines(
        "connections.max",
        GAUGE,
        "{connection}",
        "The most connections that may be on loan; absent if there is no limit",
        lambda engine: engine.connections.capacity,
    ),
    of_engines(
        "connections.held",
        GAUGE,
        "s",
        "Age of the oldest checkout that is still open; 0 if there is none",
        lambda engine: max((holder.seconds for holder in engine.holders), default=0.0),
    ),
    of_engines(
        "connections.waiting",
        GAUGE,
        "{task}",
        "Tasks waiting in line for a connection; those of a writer wait for the turn",
        lambda engine: engine.waiting,
        line=True,
    ),
    of_engines(
        "connections.wait",
        HISTOGRAM,
        "s",
        "Time that tasks spent waiting for a connection",
        lambda engine: engine.waits,
        line=True,
    ),
    of_engines(
        "connections.requests",
        COUNTER,
        "{request}",
        "Requests for a connection, by outcome",
        lambda engine: outcomes(engine.waits),
        by="outcome",
        line=True,
    ),
    of_engines(
        "connections.checkouts",
        COUNTER,
        "{checkout}",
        "Checkouts of connections",
        lambda engine: engine.connections.checkouts,
    ),
    of_engines(
        "connections.opened",
        COUNTER,
        "{connection}",
        "Connections that were opened",
        lambda engine: engine.connections.opened,
    ),
    of_engines(
        "connections.thrown_away",
        COUNTER,
        "{connection}",
        "Connections that SQLAlchemy threw away, for example after a cancellation",
        lambda engine: engine.connections.thrown_away,
    ),
    of_engines(
        "connections.kept_after_all",
        COUNTER,
        "{connection}",
        "Connections among those thrown away that were still usable and were kept",
        lambda engine: engine.connections.kept_after_all,
    ),
    # -- statements and transactions
    of_engines(
        "statements",
        COUNTER,
        "{statement}",
        "Statements that have run: inline on the event loop, or in a thread",
        lambda engine: {"inline": engine.statements.inline, "thread": engine.statements.in_thread},
        by="placement",
    ),
    of_engines(
        "statements.too_long_inline",
        COUNTER,
        "{statement}",
        "Statements that ran on the event loop for too long",
        lambda engine: engine.statements.too_long_inline,
    ),
    of_engines(
        "statements.failed",
        COUNTER,
        "{statement}",
        "Statements that raised an error",
        lambda engine: engine.statements.failed,
    ),
    of_engines(
        "statements.duration",
        COUNTER,
        "s",
        "Time of statements in SQLite, without waits",
        lambda engine: engine.statements.seconds,
    ),
    of_engines(
        "transactions",
        COUNTER,
        "{transaction}",
        "Transactions that have ended: they only read, committed, rolled back, "
        "or SQLite ended them",
        lambda engine: {
            "read": engine.transactions.reads,
            "commit": engine.transactions.commits,
            "rollback": engine.transactions.rollbacks,
            "lost": engine.transactions.lost,
        },
        by="outcome",
    ),
    of_engines(
        "commits.duration",
        COUNTER,
        "s",
        "Time spent in COMMIT, including the disk",
        lambda engine: engine.transactions.commit_seconds,
    ),
    # -- functions
    of_database(
        "functions",
        COUNTER,
        "{function}",
        "Functions that run_read() and run_write() have run",
        lambda found: {"read": found.functions.reads, "write": found.functions.writes},
        by="kind",
    ),
    of_database(
        "functions.hops",
        COUNTER,
        "{hop}",
        "Hops to a thread in which functions ran: for writes, each with one COMMIT",
        lambda found: {"read": found.functions.read_hops, "write": found.functions.groups},
        by="kind",
    ),
    of_database(
        "functions.timed_out",
        COUNTER,
        "{function}",
        "Functions that did not run because their wait timed out",
        lambda found: {
            "read": found.functions.reads_timed_out,
            "write": found.functions.writes_timed_out,
        },
        by="kind",
    ),
    # -- readers and the log
    of_database(
        "readers",
        GAUGE,
        "{transaction}",
        "Read transactions that are open",
        lambda found: found.reading,
    ),
    of_database(
        "readers.oldest",
        GAUGE,
        "s",
        "Age of the oldest read transaction; 0 if there is none",
        lambda found: 0.0 if found.oldest_reader is None else found.oldest_reader.seconds,
    ),
    of_database(
        "wal.size",
        GAUGE,
        "By",
        "The size of the -wal file; absent without a write-ahead log, as all of the log's",
        lambda found: None if found.wal is None else found.wal.size,
    ),
    of_database(
        "wal.soft_limit",
        GAUGE,
        "By",
        "The size above which a checkpoint runs in a quiet moment; absent if there is none",
        lambda found: None if found.wal is None else found.wal.soft_limit,
    ),
    of_database(
        "wal.limit",
        GAUGE,
        "By",
        "The size above which readers are asked to wait for a checkpoint; absent if there is none",
        lambda found: None if found.wal is None else found.wal.limit,
    ),
    of_database(
        "wal.frames",
        GAUGE,
        "{frame}",
        "Frames in use in the log, each a page",
        lambda found: None if found.wal is None else found.wal.frames,
    ),
    of_database(
        "wal.frames_checkpointed",
        GAUGE,
        "{frame}",
        "Frames among them that were in the database, too, after the last "
        "checkpoint of this process",
        lambda found: None if found.wal is None else found.wal.checkpointed,
    ),
    of_database(
        "wal.held_back",
        GAUGE,
        "1",
        "1 if something held the last checkpoint back, else 0",
        lambda found: None if found.wal is None else float(found.wal.held_back_by is not None),
    ),
    of_database(
        "wal.reset_bug",
        GAUGE,
        "1",
        "1 if this SQLite has the WAL-reset bug, else 0",
        lambda found: None if found.wal is None else float(found.wal.reset_bug),
    ),
    of_database(
        "wal.outside_writers",
        GAUGE,
        "{process}",
        "Programs that write without using this package",
        lambda found: None if found.wal is None else len(found.wal.outside_writers),
    ),
    of_database(
        "checkpoints",
        COUNTER,
        "{checkpoint}",
        "Checkpoints of this process, by outcome",
        lambda found: {
            "moved_all": found.checkpoints.moved_all,
            "truncated": found.checkpoints.truncated,
            "held_back": found.checkpoints.held_back,
            "busy": found.checkpoints.busy,
        },
        by="outcome",
    ),
    of_database(
        "checkpoints.duration",
        COUNTER,
        "s",
        "Time for which checkpoints kept writers waiting",
        lambda found: found.checkpoints.seconds,
    ),
    of_database(
        "gaps",
        COUNTER,
        "{gap}",
        "Gaps between read transactions, in which the log can restart",
        lambda found: found.gaps.gaps,
    ),
    of_database(
        "gaps.duration",
        COUNTER,
        "s",
        "Time of the gaps",
        lambda found: found.gaps.seconds,
    ),
    of_database(
        "gaps.readers_waited",
        COUNTER,
        "{transaction}",
        "Reads that waited for the end of a gap",
        lambda found: found.gaps.readers_waited,
    ),
)
