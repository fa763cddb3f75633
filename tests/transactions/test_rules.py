"""The needs of a statement, as tables."""

from __future__ import annotations

import pytest

from sa_sqlite_pool.settings import Role
from sa_sqlite_pool.sqlite.authorizer import Access
from sa_sqlite_pool.sqlite.statements import Kind
from sa_sqlite_pool.transactions.rules import ConnectionState, Plan, is_refused, needs_turn, plan

SWAP_IN = ConnectionState(
    Role.AUTO, swap_in=True, has_turn=False, autocommit=False, in_transaction=False
)
WITH_TURN = SWAP_IN._replace(has_turn=True, in_transaction=True)
FLAGGED = SWAP_IN._replace(role=Role.WRITER)
SNAPSHOT = SWAP_IN._replace(role=Role.READER)
AUTOCOMMIT = SWAP_IN._replace(autocommit=True)
WRITER = ConnectionState(
    Role.WRITER, swap_in=False, has_turn=False, autocommit=False, in_transaction=False
)
READER = WRITER._replace(role=Role.READER)
IN_AUTOCOMMIT = WRITER._replace(autocommit=True)


@pytest.mark.parametrize(
    ("kind", "state", "expected"),
    [
        (Kind.READ, SWAP_IN, False),
        (Kind.WRITE, SWAP_IN, True),
        (Kind.SAVEPOINT, SWAP_IN, False),
        (Kind.TEMP_DML, SWAP_IN, False),
        (Kind.TEMP_DDL, SWAP_IN, False),
        (Kind.PRAGMA_WRITE, SWAP_IN, True),
        (Kind.PRAGMA, SWAP_IN, False),
        (Kind.BEGIN, SWAP_IN, False),
        (Kind.BEGIN_WRITE, SWAP_IN, True),
        (Kind.MAINTENANCE, SWAP_IN, True),
        (Kind.SETTING, SWAP_IN, False),
        (Kind.ATTACH, SWAP_IN, False),
        (Kind.WRITE, WITH_TURN, False),
        (Kind.READ, FLAGGED, True),
        (Kind.SETTING, FLAGGED, False),
        (Kind.WRITE, AUTOCOMMIT, True),
        (Kind.SAVEPOINT, AUTOCOMMIT, False),
        (Kind.WRITE, SNAPSHOT, False),
        (Kind.WRITE, WRITER, True),
        (Kind.READ, WRITER, True),
        (Kind.PRAGMA, WRITER, True),
        (Kind.PRAGMA_WRITE, WRITER, True),
        (Kind.EXPLAIN, WRITER, True),
        (Kind.SAVEPOINT, WRITER, True),
        (Kind.BEGIN, WRITER, True),
        (Kind.PRAGMA, FLAGGED, True),
        (Kind.SETTING, WRITER, False),
        (Kind.WRITE, WRITER._replace(has_turn=True), False),
        (Kind.READ, WRITER._replace(autocommit=True), False),
        (Kind.BEGIN, WRITER._replace(autocommit=True), True),
        (Kind.WRITE, READER, False),
    ],
)
def test_who_needs_the_turn(kind: Kind, state: ConnectionState, expected: bool) -> None:
    """Writes of swap-in connections need it; on a writer engine, the checkout is the turn."""
    assert needs_turn(kind, state) is expected


@pytest.mark.parametrize(
    ("kind", "state", "expected"),
    [
        (Kind.READ, SWAP_IN, Plan(Access.NO_WRITES)),
        (Kind.WRITE, WITH_TURN, Plan(Access.ALL)),
        (Kind.WRITE, SWAP_IN._replace(has_turn=True), Plan(Access.ALL, "BEGIN IMMEDIATE")),
        (Kind.SETTING, SWAP_IN, Plan(Access.NO_WRITES)),
        (Kind.EXPLAIN, SWAP_IN, Plan(Access.EXAMINED)),
        (Kind.EXPLAIN, SNAPSHOT, Plan(Access.EXAMINED, "BEGIN")),
        (Kind.READ, FLAGGED._replace(has_turn=True), Plan(Access.ALL, "BEGIN IMMEDIATE")),
        (Kind.READ, SNAPSHOT, Plan(Access.READER, "BEGIN")),
        (Kind.READ, READER, Plan(Access.READER, "BEGIN")),
        (Kind.PRAGMA, READER, Plan(Access.READER, "BEGIN")),
        (Kind.PRAGMA, WRITER, Plan(Access.ALL, "BEGIN IMMEDIATE")),
        (Kind.BEGIN, WRITER, Plan(Access.ALL, "BEGIN IMMEDIATE")),
        (Kind.BEGIN, IN_AUTOCOMMIT._replace(has_turn=True), Plan(Access.ALL, "BEGIN IMMEDIATE")),
        (Kind.BEGIN, READER, Plan(Access.READER)),
        (Kind.BEGIN, SWAP_IN, Plan(Access.NO_WRITES)),
        (Kind.TEMP_DML, SWAP_IN, Plan(Access.NO_WRITES, "BEGIN")),
        (Kind.TEMP_DDL, SWAP_IN, Plan(Access.NO_WRITES)),
        (Kind.SAVEPOINT, SWAP_IN, Plan(Access.NO_WRITES)),
        (Kind.READ, READER._replace(in_transaction=True), Plan(Access.READER)),
        (Kind.READ, READER._replace(autocommit=True), Plan(Access.READER)),
        (Kind.SETTING, READER, Plan(Access.READER)),
        (Kind.READ, WRITER, Plan(Access.ALL, "BEGIN IMMEDIATE")),
        (Kind.MAINTENANCE, WRITER, Plan(Access.ALL)),
        (Kind.WRITE, IN_AUTOCOMMIT._replace(has_turn=True), Plan(Access.ALL)),
        (Kind.READ, IN_AUTOCOMMIT, Plan(Access.NO_WRITES)),
        (Kind.SETTING, IN_AUTOCOMMIT, Plan(Access.NO_WRITES)),
    ],
)
def test_how_a_statement_is_executed(kind: Kind, state: ConnectionState, expected: Plan) -> None:
    """The rules define which BEGIN precedes it, and what SQLite may permit."""
    assert plan(kind, state, atomic=False) == expected


def test_executemany_in_autocommit_is_wrapped() -> None:
    """It is executed completely or not at all."""
    state = AUTOCOMMIT._replace(has_turn=True)
    assert plan(Kind.WRITE, state, atomic=True) == Plan(Access.ALL, "BEGIN IMMEDIATE", True)
    assert plan(Kind.READ, state, atomic=True) == Plan(Access.ALL)


@pytest.mark.parametrize("kind", Kind)
def test_only_readers_are_refused_by_kind(kind: Kind) -> None:
    """For readers, only statements that would bypass a read-only connection are refused."""
    assert not is_refused(kind, SWAP_IN)
    assert not is_refused(kind, WRITER)
    assert is_refused(kind, READER) is (kind in {Kind.BEGIN_WRITE, Kind.MAINTENANCE})
    refused = {Kind.BEGIN_WRITE, Kind.MAINTENANCE, Kind.ATTACH}
    assert is_refused(kind, SNAPSHOT) is (kind in refused)
