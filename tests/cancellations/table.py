"""The operations, their frequencies, and the ways to run them."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, TypeVar

import sqlalchemy

from sa_sqlite_pool import SQLiteDatabase

from . import functions
from .doors import Door
from .operations import (
    Run,
    autocommit,
    checkpoint,
    disposed,
    fresh_read,
    many_rows,
    new_engine,
    on_after_timeout,
    one_of_group_fails,
    orm_flush,
    point_read,
    raw,
    read_modify_write,
    read_then_write,
    rolled_back,
    rows,
    rows_selected_slowly,
    savepoint_rolled_back,
    scan,
    snapshot,
    stream,
    timed_out,
    unshielded_close,
    whole_tokens,
)
from .oracle import Ledger

T = TypeVar("T")

# While SQLAlchemy queries the database on an engine's first connection, older versions (2.0.53;
# not 2.0.58) lose the connection if they are cancelled, and the package warns of that.
_version = tuple(map(int, re.findall(r"\d+", sqlalchemy.__version__)[:3]))
_WEIGHT_OF_NEW_ENGINES = 1 if _version >= (2, 0, 58) else 0


@dataclass(frozen=True)
class Operation:
    """A name, a relative frequency, and the ways to run the operation."""

    name: str
    weight: int
    ways: Mapping[str, Run]


def _ways(
    run: Callable[[T, Ledger, Random], Coroutine[Any, Any, None]],
    targets: Iterable[tuple[str, T]],
) -> dict[str, Run]:
    return {name: partial(run, target) for name, target in targets}


def everything(doors: Iterable[Door]) -> list[Operation]:
    """Return all operations, through all doors."""
    doors = list(doors)
    warm = [door for door in doors if door.warm]
    databases = [(door.name, door.database) for door in warm if door.database is not None]
    return [
        *(*_writes(warm), *_reads(warm), *_groups(warm)),
        *(*_functions(databases), *_reads_of_functions(databases), *_cold(doors)),
    ]


def _writes(doors: list[Door]) -> list[Operation]:
    transactions = _named({door.name: door.transactions for door in doors})
    exclusive = _named({door.name: door.exclusive for door in doors})
    engines = _named({door.name: door.engines for door in doors})
    sessions = _named({door.name: door.sessions for door in doors})
    return [
        Operation("one row", 6, _ways(partial(rows, 1), transactions)),
        Operation("two rows", 4, _ways(partial(rows, 2), transactions)),
        Operation("many rows", 3, _ways(many_rows, transactions)),
        Operation("rows selected slowly", 2, _ways(rows_selected_slowly, transactions)),
        Operation("rolled back", 3, _ways(rolled_back, transactions)),
        Operation("savepoint rolled back", 3, _ways(savepoint_rolled_back, transactions)),
        Operation("read then write", 3, _ways(read_then_write, transactions)),
        Operation("read, modify, write", 3, _ways(read_modify_write, exclusive)),
        Operation("orm flush", 3, _ways(orm_flush, sessions)),
        Operation("raw connection", 2, _ways(raw, exclusive)),
        Operation("autocommit", 2, _ways(partial(autocommit, 1), engines)),
        Operation("autocommit, many rows", 2, _ways(partial(autocommit, 100), engines)),
        Operation("unshielded close", 3, _ways(unshielded_close, engines)),
        Operation("on after a time-out", 2, _ways(on_after_timeout, engines)),
    ]


def _reads(doors: list[Door]) -> list[Operation]:
    reads = _named({door.name: door.reads for door in doors})
    snapshots = _named({door.name: door.snapshots for door in doors})
    return [
        Operation("point read", 4, _ways(point_read, reads)),
        Operation("scan", 2, _ways(scan, reads)),
        Operation("stream", 4, _ways(stream, reads)),
        Operation("snapshot", 2, _ways(snapshot, snapshots)),
        Operation("whole tokens", 2, _ways(whole_tokens, snapshots)),
    ]


def _functions(databases: list[tuple[str, SQLiteDatabase]]) -> list[Operation]:
    runs = [
        (f"{name} {run.__name__}()", run)
        for name, db in databases
        for run in (db.run_write, db.run_write_core)
    ]
    return [
        Operation("written by a function", 5, _ways(functions.written, runs)),
        Operation("counted by a function", 3, _ways(functions.counted, runs)),
        Operation("written slowly by a function", 2, _ways(functions.written_slowly, runs)),
        Operation("a function raises", 3, _ways(functions.raised, runs)),
        Operation("a function with a savepoint", 2, _ways(functions.beside_savepoint, runs)),
        Operation("functions together", 4, _ways(functions.written_together, runs)),
        Operation("fresh read by functions", 3, _ways(functions.fresh, databases)),
    ]


def _reads_of_functions(databases: list[tuple[str, SQLiteDatabase]]) -> list[Operation]:
    runs = [
        (f"{name} {run.__name__}()", run)
        for name, db in databases
        for run in (db.run_read, db.run_read_core)
    ]
    prepared = [(name, functions.Prepared(db)) for name, db in databases]
    copies = [(name, partial(functions.copied, db)) for name, db in databases]
    return [
        Operation("whole tokens in a function", 3, _ways(functions.whole, runs)),
        Operation("scan in a function", 2, _ways(functions.scanned, runs)),
        Operation("prepared point reads", 3, {name: one.point for name, one in prepared}),
        Operation("prepared whole tokens", 2, {name: one.whole for name, one in prepared}),
        Operation("prepared scan", 2, {name: one.scanned for name, one in prepared}),
        Operation("copy", 1, dict(copies)),
    ]


def _groups(doors: list[Door]) -> list[Operation]:
    transactions = _named({door.name: door.transactions for door in doors})
    inner = [
        *_ways(partial(rows, 1), transactions).items(),
        *_ways(rows_selected_slowly, transactions).items(),
    ]
    checkpoints = [(door.name, door.checkpoint) for door in doors if door.checkpoint is not None]
    return [
        Operation("checkpoint", 1, _ways(checkpoint, checkpoints)),
        Operation("fresh read", 2, fresh_reads(doors)),
        Operation("timed out", 3, _ways(timed_out, inner)),
        Operation("one of a group fails", 1, _ways(one_of_group_fails, _by_name(doors))),
    ]


def _cold(doors: list[Door]) -> list[Operation]:
    """Return operations during which connections are opened."""
    cold = [door for door in doors if not door.warm]
    transactions = _named({door.name: door.transactions for door in cold})
    reads = _named({door.name: door.reads for door in cold})
    ways = _ways(partial(rows, 2), transactions) | _ways(point_read, reads)
    new = _named({door.name: door.new_engines for door in doors})
    engines = _named({door.name: door.engines for door in cold})
    return [
        Operation("disposed of", 2, _ways(disposed, engines)),
        Operation("cold connection", 2, ways),
        Operation("new engine", _WEIGHT_OF_NEW_ENGINES, _ways(new_engine, new)),
    ]


def mixed(door: Door) -> list[Operation]:
    """Return short writes and scans, through one door."""
    transactions, reads = _named({"": door.transactions}), _named({"": door.reads})
    return [
        Operation("one row", 1, _ways(partial(rows, 1), transactions)),
        Operation("scan", 1, _ways(scan, reads)),
    ]


def fresh_reads(doors: Iterable[Door]) -> dict[str, Run]:
    """Return a write followed by a read, through each door."""
    return {
        f"{door.name} {write} → {read}": partial(fresh_read, transaction, place)
        for door in doors
        for write, transaction in door.transactions.items()
        for read, place in door.reads.items()
    }


def _named(by_door: Mapping[str, Mapping[str, T]]) -> list[tuple[str, T]]:
    return [
        (f"{door} {name}".strip(), target)
        for door, targets in by_door.items()
        for name, target in targets.items()
    ]


def _by_name(doors: Iterable[Door]) -> list[tuple[str, Door]]:
    return [(door.name, door) for door in doors]
