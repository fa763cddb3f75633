"""Read transactions without connections."""

from __future__ import annotations

import asyncio

from sa_sqlite_pool.turn.permit import Permit
from sa_sqlite_pool.turn.snapshots import Snapshot, Snapshots


def permit() -> Permit:
    return Permit(asyncio.current_task(), 0.0)


def begun(snapshots: Snapshots, *, long: bool = False) -> Snapshot:
    snapshot = snapshots.begin(permit(), long=long)
    assert snapshot is not None
    return snapshot
