"""No hang: the interpreter exits, whatever is still open."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from .helpers import files_beside

SECONDS = 20.0  # the time that an exit may take; less than any time-out
DOORS = ["swap-in", "pools", "facade"]
LEFT = [
    *("nothing", "a_running_read", "a_running_write", "a_write_transaction", "waiters"),
    "everything",
]
SHORT = {("everything", "facade"), ("everything", "swap-in"), ("a_running_write", "pools")}
EVERY_WAY = pytest.mark.parametrize(
    ("left", "door"),
    [
        pytest.param(left, door, marks=[] if (left, door) in SHORT else [pytest.mark.long])
        for left in LEFT
        for door in DOORS
    ],
)
ROOT = Path(__file__).parent.parent


class Program:
    """A program of ``exit_programs``, and the time that it takes to end."""

    def __init__(self, program: str, left: str, door: str, path: Path) -> None:
        names = [program, left, door, str(path)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.exit_programs", *names],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []
        self._since = time.monotonic()

    def until(self, line: str) -> None:
        """Read the output up to ``line``, from which the exit is timed."""
        assert self._process.stdout is not None
        while not self.said or self.said[-1] != line:
            said = self._process.stdout.readline()
            assert said, self._process.communicate()[1]
            self.said.append(said.strip())
        self._since = time.monotonic()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)
        self._since = time.monotonic()

    def end(self) -> tuple[int, str]:
        """Return its exit code and stderr after it has ended in time."""
        try:
            stderr = self._process.communicate(timeout=30)[1]
        finally:
            self._process.kill()
        seconds = time.monotonic() - self._since
        print(f"ended after {seconds:.2f} s")  # noqa: T201 - for pytest -s
        assert seconds < SECONDS, f"{seconds:.1f} s\n{stderr}"
        return self._process.returncode, stderr


def assert_consistent(path: Path, rows: int) -> None:
    """Check that exactly the committed rows are in the file, even after a kill."""
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*) FROM t").fetchall() == [(rows,)]
        connection.execute("BEGIN IMMEDIATE")


@EVERY_WAY
def test_main_returns(path: Path, left: str, door: str) -> None:
    """Nothing was closed, and the end is quick and silent."""
    program = Program("returns", left, door, path)
    program.until("ready")
    assert program.end() == (0, "")
    assert_consistent(path, 1)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("program", ["returns", "raises", "writes_at_the_exit"])
def test_the_file_holds_everything(path: Path, program: str, door: str) -> None:
    """As without a log, a script may dispose of nothing, and its file can be copied alone."""
    rows = 2 if program == "writes_at_the_exit" else 1
    running = Program(program, "nothing", door, path)
    running.until("ready")
    running.end()
    assert_whole(path, rows)


def test_functions_in_one_hop_leave_no_log(path: Path) -> None:
    """Their readers are at rest in a separate line."""
    program = Program("calls_functions", "nothing", "facade", path)
    program.until("ready")
    assert program.end() == (0, "")
    assert_whole(path, 2)


def test_a_handler_that_comes_later(path: Path) -> None:
    """It reopens connections, and is delayed for a moment at most."""
    program = Program("writes_later_at_the_exit", "nothing", "swap-in", path)
    program.until("counts 2")
    assert program.end() == (0, "")
    assert_consistent(path, 2)


def test_a_daemon_that_writes_on(path: Path) -> None:
    """Its thread begins nothing new while the interpreter exits."""
    program = Program("writes_in_a_daemon", "nothing", "swap-in", path)
    program.until("ready")
    assert program.end() == (0, "")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*) > 5 FROM t").fetchall() == [(1,)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_ends_before_its_parent(path: Path) -> None:
    """It closes its own connections, and the parent continues to write."""
    program = Program("forks", "nothing", "swap-in", path)
    program.until("counts 3 0")
    assert program.end() == (0, "")
    assert_whole(path, 3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_process_of_multiprocessing(path: Path) -> None:
    """It ends without ``atexit``, and yet its last commits are in the file."""
    program = Program("starts_a_process", "nothing", "swap-in", path)
    program.until("ended 0")
    assert program.end() == (0, "")
    assert_whole(path, 2)


def test_a_log_that_is_to_stay(path: Path) -> None:
    """``keep_wal`` leaves it to another program, even if the database was not closed."""
    program = Program("keeps_the_log", "nothing", "facade", path)
    program.until("ready")
    assert program.end() == (0, "")
    assert files_beside(path) == {path.name, f"{path.name}-wal", f"{path.name}-shm"}
    assert_consistent(path, 1)


def assert_whole(path: Path, rows: int) -> None:
    """Check that the file alone is the whole database."""
    assert files_beside(path) == {path.name}
    assert_consistent(path, rows)


@EVERY_WAY
def test_sys_exit_in_a_task(path: Path, left: str, door: str) -> None:
    """SystemExit passes through the loop."""
    program = Program("exits_in_a_task", left, door, path)
    program.until("ready")
    assert program.end() == (0, "")
    assert_consistent(path, 1)


@EVERY_WAY
def test_an_exception_out_of_main(path: Path, left: str, door: str) -> None:
    """Its traceback is the only one."""
    program = Program("raises", left, door, path)
    program.until("ready")
    code, stderr = program.end()
    assert code == 1
    assert_only(stderr, "LookupError: as expected")


def assert_only(stderr: str, last: str) -> None:
    """Check that there is only one traceback, and no warning about anything left behind."""
    assert stderr.strip().endswith(last), stderr
    assert stderr.count("Traceback") == 1, stderr
    for complaint in ("Exception ignored", "Task was destroyed", "never retrieved", "Warning"):
        assert complaint not in stderr, stderr


@EVERY_WAY
def test_the_loop_is_closed_by_hand(path: Path, left: str, door: str) -> None:
    """Its tasks never run again, which asyncio reports; this package adds no message."""
    program = Program("closes_the_loop", left, door, path)
    program.until("ready")
    code, stderr = program.end()
    assert code == 0, stderr
    assert "Exception ignored" not in stderr, stderr
    assert_consistent(path, 1)


@EVERY_WAY
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed(path: Path, number: signal.Signals, left: str, door: str) -> None:
    """With the default action, it ends at once, and the database is consistent."""
    program = Program("waits_for_a_signal", left, door, path)
    program.until("ready")
    program.send(number)
    assert program.end() == (-number, "")
    assert_consistent(path, 1)


@EVERY_WAY
@pytest.mark.parametrize("program", ["exits_in_a_handler", "stops_the_loop_in_a_handler"])
def test_a_handler_for_sigterm(path: Path, program: str, left: str, door: str) -> None:
    """An application ends in its own way."""
    running = Program(program, left, door, path)
    running.until("ready")
    running.send(signal.SIGTERM)
    code, stderr = running.end()
    assert code == 0, stderr
    assert "Exception ignored" not in stderr, stderr
    if program == "exits_in_a_handler":
        assert stderr == ""
    assert_consistent(path, 1)


@EVERY_WAY
def test_ctrl_c(path: Path, left: str, door: str) -> None:
    """The main task is cancelled, and a facade closes everything that runs."""
    program = Program("waits_for_a_signal", left, door, path)
    program.until("ready")
    program.send(signal.SIGINT)
    assert_interrupted(program, path)


def interrupted_twice(path: Path, left: str) -> Program:
    program = Program("waits_for_a_signal", left, "facade", path)
    program.until("ready")
    program.send(signal.SIGINT)
    program.until("cancelled")
    program.send(signal.SIGINT)
    return program


def test_ctrl_c_twice(path: Path) -> None:
    """The second one arrives while ``async with db`` obeys the first and waits for running work."""
    assert_interrupted(interrupted_twice(path, "everything"), path)


def test_ctrl_c_twice_where_nothing_runs(path: Path) -> None:
    """asyncio raises the second wherever its loop is then, for example between coroutine and task.

    Tasks may therefore cause warnings, but the program ends, and the database is as it was.
    """
    code, stderr = interrupted_twice(path, "nothing").end()
    assert code == -signal.SIGINT, stderr
    assert "KeyboardInterrupt" in stderr
    assert_consistent(path, 1)


def assert_interrupted(program: Program, path: Path) -> None:
    code, stderr = program.end()
    assert code == -signal.SIGINT, stderr
    assert stderr.strip().endswith("KeyboardInterrupt"), stderr
    for complaint in ("Exception ignored", "Task was destroyed", "never retrieved", "Warning"):
        assert complaint not in stderr, stderr
    assert_consistent(path, 1)


@pytest.mark.long
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("left", ["nothing", "a_running_read", "a_write_transaction"])
def test_asyncio_run_twice(path: Path, left: str, door: str) -> None:
    """The second loop uses the connections of the first."""
    program = Program("runs_twice", left, door, path)
    program.until("ready")
    assert program.said[:2] == ["counts 2", "counts 3"]
    assert program.end() == (0, "")
    assert_consistent(path, 3)


@pytest.mark.long
@pytest.mark.parametrize("door", DOORS)
def test_two_loops_at_once(path: Path, door: str) -> None:
    """In two threads with 200 writes and reads each, no update is lost."""
    program = Program("runs_in_two_threads", "nothing", door, path)
    program.until("ready")
    assert program.said == ["counts 401", "ready"]
    assert program.end() == (0, "")
