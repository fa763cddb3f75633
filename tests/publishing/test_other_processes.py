"""Publishing processes that are killed, stopped, blocked or forked, or that another user runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.children import Child, needs_fork_server
from tests.helpers import let_others_in
from tests.publishing import programs
from tests.publishing.looking import ask, make_old, sockets, stop

pytestmark = needs_fork_server


@pytest.fixture
def child(path: Path) -> Iterator[Child]:
    with Child(programs.opens, path) as found:
        assert found.hear() == "open"
        yield found


def test_several_processes_answer(path: Path, child: Child) -> None:
    """Each answers with its process number and statistics; answers are sorted by number."""
    with Child(programs.opens, path) as other:
        assert other.hear() == "open"
        assert child.ask("write") == "written"
        first, second = ask(path)
        assert [first.pid, second.pid] == sorted([child.pid, other.pid])
        held = {}
        for answer in (first, second):
            assert answer.statistics is not None
            held[answer.pid] = answer.statistics["turn"]["holder"]
        assert held[other.pid] is None
        assert held[child.pid]["sql"] == "INSERT INTO t VALUES (1)"


def test_a_killed_process_leaves_nothing_to_see(path: Path, child: Child) -> None:
    """Its socket refuses connections, and the next query removes it."""
    child.kill()
    (left,) = sockets(path)
    assert ask(path) == []
    make_old(left)
    assert ask(path) == []
    assert sockets(path) == []


def test_a_stopped_process_does_not_answer(path: Path, child: Child) -> None:
    """It is named nevertheless, even after more queries than its socket can queue."""
    stop(child, path)
    for timeout in (0.2, *[0.01] * 20):
        (answer,) = ask(path, timeout)
        assert (answer.pid, answer.statistics) == (child.pid, None)
        assert answer.error == f"does not respond within {timeout:g} s"
    assert len(sockets(path)) == 1
    child.go_on()
    assert child.ask("close") == "closed"
    assert sockets(path) == []


def test_a_blocked_event_loop_can_be_looked_at(path: Path, child: Child) -> None:
    """The answer does not come from the loop."""
    assert child.ask("block") == "blocked"
    (answer,) = ask(path)
    assert answer.statistics is not None
    assert child.ask("go on") == "done"


def test_a_forked_child_neither_answers_nor_removes(path: Path, child: Child) -> None:
    """The socket belongs to the parent: it answers beside the child, and ends with the parent."""
    forked = child.ask("fork")
    try:
        assert child.hear() == "done"
        (answer,) = ask(path)
        assert answer.pid == child.pid
        (socket,) = sockets(path)
        child.kill()
        os.kill(forked, 0)  # the child still runs
        make_old(socket)
        assert ask(path) == []  # refused: the child has closed the socket that it inherited
        assert sockets(path) == []
    finally:
        os.kill(forked, signal.SIGKILL)


def test_a_child_that_exits_leaves_the_parents_socket(path: Path) -> None:
    """This includes a child that exits as a program does, with all its finalizers."""
    program = """
import asyncio, os, sys, warnings
from pathlib import Path
from sa_sqlite_pool import SQLiteDatabase
from tests.publishing.looking import ask_beside, published, sockets
warnings.simplefilter("ignore", DeprecationWarning)
path = Path(sys.argv[1])

async def in_child(db):
    await db.close()
    print(len(sockets(path)), flush=True)

db = SQLiteDatabase(path)
loop = asyncio.new_event_loop()
loop.run_until_complete(db.open())
loop.run_until_complete(published(path))
for closes in (True, False):
    if os.fork() == 0:
        if closes:
            asyncio.run(in_child(db))
        sys.exit()
    os.wait()
print(len(loop.run_until_complete(ask_beside(path))))
loop.run_until_complete(db.close())
print(len(sockets(path)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout.split(), done.stderr) == (["1", "1", "0"], "")


@pytest.mark.skipif(os.name == "nt" or os.getuid() != 0, reason="needs a second user")
@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_another_user_is_refused(tmp_path: Path, mode: int) -> None:
    """The answer says which user is answered; a ``chmod`` of all files changes nothing."""
    let_others_in(tmp_path)
    path = tmp_path / "app.db"
    program = """
import os, sys
from sa_sqlite_pool.publishing.asking import ask_all
os.setgid(65534); os.setuid(65534)
for answer in ask_all(sys.argv[1], 5.0):
    print(answer.pid, answer.error, answer.document)
"""
    with Child(programs.opens, path) as child:
        assert child.hear() == "open"
        while not ask(path):  # until it listens
            pass
        (socket,) = sockets(path)
        os.chmod(socket, mode)
        done = subprocess.run(
            [sys.executable, "-c", program, str(path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout == f"{child.pid} answers only the user 0 and root None\n"
