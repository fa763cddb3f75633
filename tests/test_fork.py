"""``fork()``: a child never touches its parent's connections, and both keep working."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork here")

ROOT = Path(__file__).parent.parent
DOORS = ["swap-in", "pools", "facade"]
EVERY_DOOR = pytest.mark.parametrize(
    "door",
    [
        pytest.param("swap-in", marks=pytest.mark.long),
        pytest.param("pools", marks=pytest.mark.long),
        "facade",
    ],
)
FORKS = 50
A_FEW_FORKS = 8
SECONDS = 150  # for a program that hangs although its children have alarms


def said(
    program: str, door: str, path: Path, *more: str, module: str = "fork_programs"
) -> dict[str, str]:
    """Return the output of a program of ``module`` and its children, after all have ended."""
    command = [sys.executable, "-m", f"tests.{module}", program, door, str(path), *more]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "", done.stdout + done.stderr
    return dict(_split(line) for line in done.stdout.splitlines())


def _split(line: str) -> tuple[str, str]:
    for key in KEYS:
        if line == key or line.startswith(f"{key} "):
            return key, line[len(key) :].strip()
    raise AssertionError(line)


KEYS = [
    *(
        "child counts",
        "child closed",
        "own connections",
        "parent counts",
        "parent's line",
        "exit",
        "files",
    ),
    *(
        "rows",
        "check",
        "others",
        "execute",
        "commit",
        "turn",
        "directory",
        "hammered",
        "refused",
        "same files",
    ),
]

FINE = {"files": "shm wal", "check": "ok"}


@EVERY_DOOR
@pytest.mark.parametrize("program", ["idle", "with_multiprocessing", "checkpointing"])
def test_a_child_opens_its_own_connections(path: Path, program: str, door: str) -> None:
    """Its first use works, and its normal end leaves the parent's log in place."""
    assert said(program, door, path) == {
        **FINE,
        "child counts": "2",
        "own connections": "True",
        "exit": "0",
        "parent counts": "3",
        "rows": "3",
    }


@EVERY_DOOR
def test_a_child_that_does_nothing_changes_nothing(path: Path, door: str) -> None:
    """Its interpreter exits and frees the objects that it inherited."""
    expected = {**FINE, "same files": "True", "exit": "0", "parent counts": "2", "rows": "2"}
    assert said("untouched", door, path) == expected


@EVERY_DOOR
def test_workers_of_a_preloaded_application(path: Path, door: str) -> None:
    """A database is opened in the parent, which forks three times: all workers' writes persist."""
    expected = {**FINE, "exit": "0 0 0", "parent counts": "62", "rows": "62"}
    assert said("preload", door, path) == expected


@EVERY_DOOR
def test_a_child_keeps_its_commits_when_the_parent_closes(path: Path, door: str) -> None:
    """The parent's last close must not remove the log to which the child writes."""
    expected = {"exit": "0", "rows": "3", "check": "ok"}
    assert said("children_survive_the_close", door, path) == expected


@EVERY_DOOR
def test_a_child_outlives_its_parent(path: Path, door: str) -> None:
    """The parent's interpreter has ended without a close; the child ends last."""
    expected = {"child counts": "2", "own connections": "True"}
    assert said("the_parent_ends_first", door, path) == expected
    assert rows(path) == 2


def rows(path: Path) -> int:
    """Return the number of rows, counted in another process: closing a file here drops locks."""
    program = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute(sys.argv[2]))"
    command = [sys.executable, "-c", program, str(path), "SELECT count(*) FROM t"]
    counted = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(counted.strip("(,)\n"))


@EVERY_DOOR
def test_the_transaction_of_the_parent_is_not_the_childs(path: Path, door: str) -> None:
    """The child gets a clear error; the parent's stays open, keeps its lock, and is committed."""
    found = said("inherited", door, path)
    assert found.pop("others") == "done"  # the last of two, after the commit
    assert found == {
        **FINE,
        "execute": "True",
        "exit": "0",
        "parent counts": "3",
        "rows": "3",
    }


@EVERY_DOOR
def test_a_child_cannot_commit_for_its_parent(path: Path, door: str) -> None:
    """``commit()`` raises, because it would have no effect."""
    found = said("commit_inherited", door, path)
    expected = {**FINE, "commit": "True", "exit": "0", "others": "done"}
    assert found == {**expected, "parent counts": "3", "rows": "3"}


@EVERY_DOOR
def test_the_locks_of_the_parent_survive_the_child(path: Path, door: str) -> None:
    """Another process cannot write while the parent's transaction is open."""
    expected = {**FINE, "exit": "0", "others": "database is locked"}
    assert said("keeps_its_lock", door, path) == {**expected, "parent counts": "3", "rows": "3"}


@EVERY_DOOR
def test_a_file_in_use_is_refused_in_the_child(path: Path, door: str) -> None:
    """The turn is free there, but SQLite's record of locks is a copy, and would not work."""
    assert said("locked", door, path) == {
        **FINE,
        "turn": "None 0",
        "refused": "True",
        "exit": "0",
        "parent counts": "3",
        "rows": "3",
    }


@EVERY_DOOR
def test_the_line_of_the_parent_is_not_the_childs(path: Path, door: str) -> None:
    """A child writes at once while the parent holds the turn, and three of its tasks wait.

    With a ``SQLitePool``, these tasks have connections checked out, and the file is refused.
    """
    works = {"child counts": "2", "own connections": "True"}
    assert said("waiters", door, path) == {
        **FINE,
        **({"refused": "True"} if door == "swap-in" else works),
        "exit": "0",
        "parent's line": "True 3",
        "parent counts": "5" if door == "swap-in" else "6",
        "rows": "5" if door == "swap-in" else "6",
    }


def test_a_database_in_memory_survives_the_child(path: Path) -> None:
    """Its directory is removed when the parent closes it, not when a child ends."""
    expected = {"child counts": "1", "exit": "0"}
    found = said("in_memory", "facade", path, module="fork_programs_closing")
    assert found == {**expected, "parent counts": "1", "directory": "False"}


def test_a_database_in_memory_that_was_closed(path: Path) -> None:
    """A child opens a new one, because its parent's directory is gone."""
    counts = {"child counts": "1", "parent counts": "1"}
    found = said("in_memory_and_closed", "facade", path, module="fork_programs_closing")
    assert found == {**counts, "exit": "0", "directory": "False"}


def test_a_child_does_not_wait_for_its_parent_to_close(path: Path) -> None:
    """It has neither the closing task nor its loop, and closes the database itself."""
    found = said("closing", "facade", path, module="fork_programs_closing")
    assert found == {"child closed": "True", "refused": "True", "exit": "0"}


HAMMERED = pytest.mark.parametrize(
    ("door", "forks"),
    [
        ("facade", A_FEW_FORKS),
        *(pytest.param(door, FORKS, marks=pytest.mark.long) for door in DOORS),
    ],
)


@HAMMERED
def test_no_child_hangs_while_the_parent_reads(path: Path, door: str, forks: int) -> None:
    """A fork waits until no thread is inside SQLite, which has mutexes for the whole process."""
    expected = {"check": "ok", "exit": f"0 of {forks}", "hammered": "True"}
    assert said("hammered_by_reads", door, path, str(forks)) == expected


@HAMMERED
def test_no_child_hangs_while_the_parent_writes(path: Path, door: str, forks: int) -> None:
    """At the fork the parent may be anywhere in a transaction."""
    expected = {"exit": f"0 of {forks}", "hammered": "True", "check": "ok"}
    assert said("hammered_by_writes", door, path, str(forks)) == expected
