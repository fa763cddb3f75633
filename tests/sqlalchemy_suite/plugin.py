"""Pytest plugin of one run: choose the pool, record every outcome, end a test that hangs.

Loaded with ``-p`` beside the `conftest.py` of SQLAlchemy's suite. Its settings are environment
variables, since that `conftest.py` parses all options itself. `outcomes.py` reads the records.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite
from sqlalchemy.engine import URL
from sqlalchemy.pool import Pool

from .watchdog import time_limit

POOL = "SA_SUITE_POOL"
"""``stock``, or ``SQLitePool``."""
RECORDS = "SA_SUITE_RECORDS"
"""The file to which records are appended, one JSON array per line."""
TEST_TIMEOUT = "SA_SUITE_TEST_TIMEOUT"
"""The time limit of a test in seconds, after which the process ends."""


def pytest_configure(config: pytest.Config) -> None:
    """Choose the pool before the suite makes its first engine."""
    recorder = Recorder(Path(os.environ[RECORDS]), float(os.environ[TEST_TIMEOUT]))
    _choose_pool(os.environ[POOL], recorder)
    config.pluginmanager.register(recorder)


def _choose_pool(name: str, recorder: Recorder) -> None:
    """Set the pool of every aiosqlite engine for which a test names none.

    ``create_engine()`` calls ``get_dialect_pool_class()`` for these alone (engine/create.py).
    """
    stock = SQLiteDialect_aiosqlite.get_dialect_pool_class

    def get_dialect_pool_class(self: SQLiteDialect_aiosqlite, url: URL) -> type[Pool]:
        chosen = stock(self, url)
        if name != "stock":
            from sa_sqlite_pool import SQLitePool  # noqa: PLC0415 - nothing of it in a stock run

            chosen = SQLitePool
        recorder.pool_chosen(chosen.__name__)
        return chosen

    SQLiteDialect_aiosqlite.get_dialect_pool_class = get_dialect_pool_class  # type: ignore[method-assign, assignment]


class Recorder:
    """The recorder of one process. A process that continues another one skips its tests."""

    def __init__(self, path: Path, test_timeout: float) -> None:
        self._pools: set[str] = set()
        self._started = _started_tests(path)
        self._file = path.open("a")
        self._test_timeout = test_timeout

    def pool_chosen(self, name: str) -> None:
        """Record the class name of each pool once."""
        if name not in self._pools:
            self._pools.add(name)
            self._record("pool", name)

    def _record(self, *values: object) -> None:
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Skip tests that were started before; SQLAlchemy's plugin has rebuilt the items by now."""
        items[:] = [item for item in items if item.nodeid not in self._started]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Limit the time of a test, its fixtures included."""
        self._record("start", item.nodeid)
        try:
            with time_limit(self._test_timeout):
                return (yield)
        finally:
            self._record("end", item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record final outcomes: the call, a skipped or failed set-up, a failed teardown."""
        if report.when == "call" or report.outcome != "passed":
            self._record(report.outcome, report.nodeid, report.longreprtext)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Record a file that cannot be imported as a failure."""
        if report.failed:
            self._record("failed", report.nodeid, report.longreprtext)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Record that all tests have ended; only the exit of the process follows."""
        self._record("finished")


def _started_tests(path: Path) -> set[str]:
    if not path.exists():
        return set()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return {values[0] for kind, *values in records if kind == "start"}
