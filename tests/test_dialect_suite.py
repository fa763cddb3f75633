"""SQLAlchemy's dialect compliance suite, on the stock dialect and through the swap-in door.

SQLAlchemy publishes the suite for authors of dialects (README.dialects.rst). Here, the comparison
matters: no test that passes on the stock dialect may fail, be skipped or be missing. Each run is a
separate pytest in `dialect_suite/`, since SQLAlchemy's plugin takes over a whole run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

SUITE = Path(__file__).parent / "dialect_suite"
RUN_TIMEOUT_S = 300.0
"""The limit for both runs together; they take about 30 seconds."""

FEWEST_PASSES = 1_200
"""SQLAlchemy 2.0 has 1,400 tests that pass on SQLite, SQLAlchemy 2.1 has 1,600."""


@dataclass(frozen=True)
class Report:
    """The report of one run of the suite."""

    passed: frozenset[str]
    failed: Mapping[str, str]
    """Failures and errors, each with its text."""
    pools: str
    """The class names of all pools that provided a connection."""
    log: str

    @property
    def leaks(self) -> list[str]:
        """Return the warnings about connections that were discarded without being closed."""
        return [line for line in self.log.splitlines() if ": ResourceWarning: " in line]


@dataclass(frozen=True)
class Contenders:
    """The same suite on the two ways to open the same kind of file."""

    stock: Report
    door: Report


class Run:
    """One pytest process over the suite, with a database file in its own directory."""

    def __init__(self, directory: Path, url: str) -> None:
        directory.mkdir()
        self._log = directory / "log.txt"
        self._junit = directory / "junit.xml"
        # The suite builds its file names from a relative name: SQLite's provision.py cuts a
        # path at its first dot or underscore.
        command = [sys.executable, "-m", "pytest", "-c", f"{SUITE / 'setup.cfg'}", f"{SUITE}"]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*command, f"--dburi={url}", f"--junitxml={self._junit}"],
                cwd=directory,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def report(self, deadline: float) -> Report:
        """Wait until the process has ended, at most until `deadline` (monotonic seconds)."""
        try:
            code = self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.stop()
            pytest.fail(f"the suite did not end in time:\n{self._tail()}")
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            pytest.fail(f"the suite ended with exit code {code}:\n{self._tail()}")
        return _read(self._junit, self._log.read_text())

    def stop(self) -> None:
        """Kill the process if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _tail(self) -> str:
        return self._log.read_text()[-16_000:]


def _environment() -> dict[str, str]:
    """Return an environment without this run's settings that shows warnings on open resources."""
    inherited = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    return inherited | {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONWARNINGS": "always::ResourceWarning",
    }


def _read(junit: Path, log: str) -> Report:
    """Read the report. A test with an error in its teardown is listed twice, and has not passed."""
    root = ElementTree.parse(junit).getroot()
    ran, failed = set(), {}
    for case in root.iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        if case.find("skipped") is None:
            ran.add(name)
        for outcome in (*case.findall("failure"), *case.findall("error")):
            failed[name] = outcome.text or ""
    (pools,) = (p.get("value", "") for p in root.iter("property") if p.get("name") == "pools")
    return Report(frozenset(ran - failed.keys()), failed, pools, log)


@pytest.fixture(scope="module")
def contenders(tmp_path_factory: pytest.TempPathFactory) -> Contenders:
    """Run both concurrently: the suite waits for its thread hops most of the time."""
    directory = tmp_path_factory.mktemp("dialect_suite")
    deadline = time.monotonic() + RUN_TIMEOUT_S
    stock = Run(directory / "stock", "sqlite+aiosqlite:///stock.db")
    door = Run(directory / "door", "sqlite+aiosqlite:///door.db?plugin=sa_sqlite_pool")
    try:
        return Contenders(stock.report(deadline), door.report(deadline))
    finally:
        stock.stop()
        door.stop()


def test_the_comparison_means_something(contenders: Contenders) -> None:
    """The stock dialect passes everything that it does not skip, so failures are noticed."""
    stock = contenders.stock
    assert len(stock.passed) >= FEWEST_PASSES, stock.log[-16_000:]
    assert sorted(stock.failed) == []


def test_each_run_used_its_own_pool(contenders: Contenders) -> None:
    """Every connection of a run came from the pool under test, even in ad-hoc engines."""
    assert contenders.stock.pools == "AsyncAdaptedQueuePool"
    assert contenders.door.pools == "SQLitePool"


def test_nothing_fails_that_does_not_fail_on_the_stock_dialect(contenders: Contenders) -> None:
    """A swap-in engine is a drop-in replacement: each additional failure is shown with its text."""
    stock, door = contenders.stock, contenders.door
    offenders = sorted(door.failed.keys() - stock.failed.keys())
    texts = "\n\n".join(f"{name}\n{door.failed[name]}" for name in offenders)
    assert not offenders, f"{len(offenders)} tests fail only through the swap-in door:\n\n{texts}"


def test_nothing_that_passes_on_the_stock_dialect_is_left_out(contenders: Contenders) -> None:
    """The swap-in door lacks no feature: a test skipped there is skipped on the stock dialect."""
    stock, door = contenders.stock, contenders.door
    left_out = sorted(stock.passed - door.passed - door.failed.keys())
    assert not left_out, f"{len(left_out)} tests run only on the stock dialect: {left_out}"


def test_nothing_is_left_open(contenders: Contenders) -> None:
    """The garbage collector finds no connection that the stock dialect would have closed."""
    leaks = contenders.door.leaks
    assert len(leaks) <= len(contenders.stock.leaks), "\n".join(leaks)
