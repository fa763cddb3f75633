"""A rollback of DDL, and the queries around it."""

from __future__ import annotations

import sqlite3
from types import SimpleNamespace
from typing import Any

import pytest

from sa_sqlite_pool.sqlite.authorizer import Authorizer
from sa_sqlite_pool.transactions import changes


def test_it_is_rolled_back_whatever_a_question_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite may have no memory for a query, and the transaction must not stay open."""

    def ask(_connection: sqlite3.Connection, _pragma: str) -> int:
        raise MemoryError

    monkeypatch.setattr(changes, "ask", ask)
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("BEGIN")
    connection.execute("CREATE TABLE item (i)")
    rules: Any = SimpleNamespace(owner=connection, label="app.db")
    with pytest.raises(MemoryError):
        changes.roll_back_schema(connection, Authorizer(), rules)
    assert not connection.in_transaction
    connection.close()
