"""A call of ``run_read()`` that was taken, and put back because of a gap."""

from __future__ import annotations

from typing import Any

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.closures.read_call import ReadCall


async def test_one_that_is_put_back_waits_on(db: SQLiteDatabase) -> None:
    """It has not been served, whatever happens to it."""
    line = db._closures._reads.line()
    call: ReadCall[Any] = ReadCall(line, None, lambda: None)
    call.taken_at = call.began + 1.0
    line.put_back(call)
    assert call.taken_at is None
    assert line.drop(call)
