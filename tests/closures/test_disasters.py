"""A process killed in the middle of a group, a full disk, a fork, and a thread that has died."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.children import Child, needs_fork_server
from tests.closures.programs import (
    ends_threads_while_errors_are_collected,
    ends_threads_while_missing_greenlets_are_collected,
    finds_no_room,
    forks_with_a_line,
    stops_in_a_group,
)

pytestmark = needs_fork_server


def kept(path: Path) -> list[int]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = connection.execute("SELECT id FROM items WHERE id > 3 ORDER BY id")
        return [row[0] for row in rows]


def test_killed_in_the_middle_of_a_group(path: Path) -> None:
    """Acknowledged calls are in the file; nothing of the unacknowledged group is."""
    with Child(stops_in_a_group, path) as child:
        assert child.hear() == [10, 11]
        assert child.hear() == "in the middle"
        child.kill()
    assert kept(path) == [10, 11]


def test_no_room_for_a_group(path: Path) -> None:
    """COMMIT or a statement fails, and no call is acknowledged whose work is not in the file."""
    pytest.importorskip("resource", reason="there are no limits for files here")
    with Child(finds_no_room, path) as child:
        outcomes = child.hear()
        acknowledged = [outcome for outcome in outcomes if isinstance(outcome, int)]
        errors = [outcome for outcome in outcomes if isinstance(outcome, str)]
        assert errors
        assert all("disk" in error for error in errors)
        assert child.hear() == [20, 21]
        assert child.ended() == 0
    assert kept(path) == [*acknowledged, 20, 21]


def test_forked_while_functions_stand_in_line(path: Path) -> None:
    """The line belongs to the parent: the child's functions do not join it, and both continue."""
    with Child(forks_with_a_line, path) as child:
        assert child.hear() == 0
        assert child.hear() == 20
        assert child.hear() == [10, 11]
        assert child.ended() == 0
    assert kept(path) == [10, 11, 20]


@pytest.mark.parametrize(
    "program",
    [
        ends_threads_while_errors_are_collected,
        ends_threads_while_missing_greenlets_are_collected,
    ],
)
def test_a_thread_that_ends_while_an_error_of_it_is_collected(program: Any, path: Path) -> None:
    """The process survives.

    An error keeps the frames of its function. If these lead to a thread's main greenlet,
    greenlet (3.5) frees that twice when the thread ends during a garbage collection, which
    kills the process: ``~ThreadState()`` in its TThreadState.hpp searches for references, and
    does not see those that are just being collected.
    """
    with Child(program, path) as child:
        assert child.hear() == "done"
        assert child.ended() == 0
