"""The rules of a connection without a pool."""

from __future__ import annotations

from typing import Any

from sa_sqlite_pool.settings import Role
from sa_sqlite_pool.transactions.rules import Rules
from sa_sqlite_pool.turn.snapshots import Snapshots
from sa_sqlite_pool.turn.write_turn import WriteTurn


def rules_of(role: Role, owner: object = None, **settings: Any) -> Rules:
    """Return the rules of a connection to app.db; ``settings`` are other fields of them."""

    def turn_of(path: str) -> WriteTurn:
        return WriteTurn(path, path, describe_writer=lambda: None, turn_of=turn_of)

    times = {"write_timeout": 5.0, "read_timeout": 7.0, "statement_timeout": None}
    return Rules(
        role,
        "app.db",
        turn=turn_of("app.db"),
        snapshots=Snapshots(),
        owner=owner,
        **(times | settings),
    )
