"""A separate connection for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sa_sqlite_pool.execution.connection_thread import ConnectionThread
from tests.execution.workers import open_worker


@pytest.fixture
async def worker() -> AsyncIterator[ConnectionThread]:
    worker = await open_worker()
    yield worker
    await worker.close()
