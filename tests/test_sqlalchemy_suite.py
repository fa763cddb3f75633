"""The runner of ``make test-sqlalchemy-suite``, on a small suite in place of SQLAlchemy's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sqlalchemy_suite.batches import batches
from tests.sqlalchemy_suite.comparison import compare
from tests.sqlalchemy_suite.differences import DIFFERENCES, Difference, known_differences
from tests.sqlalchemy_suite.outcomes import Outcomes, short
from tests.sqlalchemy_suite.run import Settings, run_all

OPTIONS = """
def pytest_addoption(parser):
    for name in ("--nomemory", "--nomypy"):
        parser.addoption(name, action="store_true")
    parser.addoption("--dburi")
"""

TEST_OF_POOL = """
from pathlib import Path

from sqlalchemy.ext.asyncio import create_async_engine

def test_pool():
    engine = create_async_engine("sqlite+aiosqlite:///some.db")
    Path(type(engine.pool).__name__).touch()
"""

TEST_OF_EXIT = """
import atexit
import os

def test_exit():
    atexit.register(os._exit, 3)
"""

TESTS = """
import asyncio
import os

import pytest

def test_passes():
    pass

def test_hangs():
    asyncio.run(asyncio.Event().wait())

def test_ends_the_process():
    os._exit(0)

def test_is_skipped():
    pytest.skip("not here")

def test_fails():
    assert False, "for a reason"

@pytest.fixture
def fails_at_its_end():
    yield
    raise OSError("too late")

def test_fails_after_it_has_passed(fails_at_its_end):
    pass
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a folder like SQLAlchemy's source distribution."""
    source = tmp_path / "source"
    folder = source / "test" / "engine"
    folder.mkdir(parents=True)
    (source / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (source / "conftest.py").write_text(OPTIONS)
    (folder / "test_some.py").write_text(TESTS)
    (folder / "test_exit.py").write_text(TEST_OF_EXIT)
    (folder / "test_pool.py").write_text(TEST_OF_POOL)
    (folder / "test_later_py399.py").write_text("of a later Python")
    return source


def name(test: str) -> str:
    return f"test/engine/test_some.py::test_{test}"


def run(pool: str, source: Path, tmp_path: Path, file: str) -> tuple[Outcomes, list[str]]:
    """Run one file of that source; return the outcomes and the progress messages."""
    told: list[str] = []
    outcomes = run_all(
        Settings(source, pool, test_timeout=4),
        batches(source, [f"test/engine/{file}"]),
        tmp_path / "run",
        processes=2,
        on_progress=told.append,
    )
    return outcomes, told


def test_each_test_has_an_outcome_whatever_the_one_before_it_did(
    source: Path, tmp_path: Path
) -> None:
    """A test that hangs, or ends its process, fails by name; the others run nevertheless."""
    outcomes, told = run("stock", source, tmp_path, "test_some.py")
    assert outcomes.passed == {name("passes")}
    assert outcomes.skipped == {name("is_skipped")}
    failed = {"hangs", "ends_the_process", "fails", "fails_after_it_has_passed"}
    assert outcomes.failed.keys() == {name(test) for test in failed}
    assert outcomes.ended_early == {name("hangs"), name("ends_the_process")}
    assert "await fut" in outcomes.failed[name("hangs")]
    assert "for a reason" in outcomes.failed[name("fails")]
    assert "too late" in outcomes.failed[name("fails_after_it_has_passed")]
    assert told == ["stock 1/1: 1 passed, 4 failed, 1 skipped"]


@pytest.mark.parametrize(
    ("pool", "used"), [("stock", "AsyncAdaptedQueuePool"), ("SQLitePool",) * 2]
)
def test_engines_get_the_pool_under_test(
    source: Path, tmp_path: Path, pool: str, used: str
) -> None:
    """The outcomes list the pool, too."""
    outcomes, _ = run(pool, source, tmp_path, "test_pool.py")
    assert outcomes.passed == {"test/engine/test_pool.py::test_pool"}
    assert outcomes.pools == {used}
    assert (tmp_path / "run" / "00" / "process0" / used).exists()


def test_a_process_that_fails_after_its_tests_is_a_failure(source: Path, tmp_path: Path) -> None:
    """All its tests have passed, but the process has not ended normally."""
    outcomes, _ = run("stock", source, tmp_path, "test_exit.py")
    assert outcomes.passed == {"test/engine/test_exit.py::test_exit"}
    assert outcomes.ended_early == {"00 (no test was running)"}
    assert "exit code 3" in outcomes.failed["00 (no test was running)"]


def test_files_of_a_later_python_are_left_out(source: Path) -> None:
    """SQLAlchemy's own run ignores them, except when they are named."""
    (files,) = batches(source, ["test/engine"])
    assert [path.name for path in files] == ["test_exit.py", "test_pool.py", "test_some.py"]


def test_what_only_the_stock_pool_passes_is_unexpected_unless_written_down() -> None:
    """A listed difference that passes is reported, too, to keep the list up to date."""
    stock = Outcomes(passed={"a", "b[1]", "b[2]", "c", "d", "e"}, failed={"f": ""})
    ours = Outcomes(passed={"c", "f", "b[2]"}, skipped={"d"}, failed={"a": "why", "b[1]": "known"})
    comparison = compare(stock, ours, [Difference("b", "a reason"), Difference("c", "another")])
    assert comparison.unexpected == {"a": "why", "d": "skipped", "e": "not collected"}
    assert comparison.known == ["b[1]"]
    assert comparison.outdated == ["b", "c"]
    assert comparison.better == ["f"]


def test_a_process_that_does_not_end_is_unexpected() -> None:
    """There is no corresponding test of the stock pool for a comparison."""
    comparison = compare(Outcomes(), Outcomes(failed={"00 (no test was running)": "why"}), [])
    assert comparison.unexpected == {"00 (no test was running)": "why"}


def test_names_are_without_the_version_of_sqlite() -> None:
    """The list of differences is therefore the same on every machine."""
    versioned = "test/x.py::SomeTest_sqlite+aiosqlite_async_3_40_1::test_x[1]"
    assert short(versioned) == "test/x.py::SomeTest::test_x[1]"


def test_a_difference_may_be_of_one_line_of_sqlalchemy() -> None:
    """A reason begins a line, and may span several; its tests are indented below it."""
    text = "# comment\nOne\nreason.\n    a\n    b  # 2.0 only\n\nAnother.\n    c\n"
    assert known_differences("2.1.9", text) == [
        Difference("a", "One reason."),
        Difference("c", "Another."),
    ]
    assert Difference("b", "One reason.") in known_differences("2.0.58", text)


def test_every_known_difference_has_a_reason() -> None:
    """The file itself can be parsed."""
    assert all(
        d.reason and "::" in d.test for d in known_differences("2.0", DIFFERENCES.read_text())
    )
