"""The files of the turn between processes, and other processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sa_sqlite_pool.errors import DatabaseNotUsableError
from sa_sqlite_pool.turn import file_turn
from tests.helpers import until
from tests.turn.file_turns import ON_LINUX, path, process, start, taken
from tests.turn.locks import (
    Calls,
    blocked,
    calls,
    is_free,
    wait_until,
    waiting_threads,
)
from tests.turn.steps import Meanwhile, every_step

__all__ = ["calls", "path"]


class TestFiles:
    """The files beside the database."""

    async def test_who_may_write_may_lock(self, path: Path) -> None:
        """Owner and permissions are those of the database."""
        path.touch(0o600)
        path.chmod(0o660)
        if os.geteuid() == 0:
            os.chown(path, 12345, 12346)
        taken(process(path)).release()
        found, model = os.stat(f"{path}-turn"), path.stat()
        assert (found.st_mode, found.st_uid, found.st_gid) == (
            model.st_mode,
            model.st_uid,
            model.st_gid,
        )
        assert found.st_size == 0

    async def test_a_link_is_not_followed(self, path: Path, tmp_path: Path) -> None:
        """In a directory that others may write to, no file is created elsewhere for them."""
        elsewhere = tmp_path / "elsewhere"
        Path(f"{path}-turn").symlink_to(elsewhere)
        with pytest.raises(DatabaseNotUsableError, match="is a symbolic link"):
            taken(process(path))
        assert not elsewhere.exists()

    async def test_removed_while_in_use(self, path: Path) -> None:
        """A holder of the turn that meets SQLite's lock checks whether its file was removed."""
        one = process(path)
        request = taken(one)
        os.unlink(f"{path}-turn")
        other = taken(process(path))  # of another file with the same name
        one.meet_busy()
        request.release()
        assert one.acquire_nowait() is None
        other.release()
        taken(one).release()

    async def test_the_line_is_removed(self, path: Path) -> None:
        """There must be a single line for all."""
        one = process(path)
        request = taken(one)
        assert one._line.acquire_nowait()
        one._line.release()
        os.unlink(f"{path}-line")
        one.meet_busy()
        other = process(path)
        assert other._line.acquire_nowait()
        assert not one._line.acquire_nowait()
        other._line.release()
        request.release()

    async def test_removed_while_somebody_waits(self, path: Path) -> None:
        """The thread that waits for a removed file's lock ends; the next waits for the new file."""
        one, other, before = process(path), process(path), waiting_threads()
        request = taken(one)
        assert other.acquire_nowait() is None
        assert await other.acquire(0.0) is None
        await until(lambda: blocked(path, "turn") == 1)
        [old] = waiting_threads() - before
        os.unlink(f"{path}-turn")
        third = taken(process(path))
        other.meet_busy()
        task = await start(path, other)
        request.release()
        await until(lambda: not old.is_alive())
        await asyncio.sleep(0)
        assert not task.done()
        third.release()
        second = await task
        assert second is not None
        second.release()

    def test_noticed_while_they_are_closed(self, path: Path) -> None:
        """Noticed by a thread whose task has released the turn: the other one does the rest."""
        for step, note in every_step():
            one, before = process(path), waiting_threads()
            with taken(process(path)):
                assert asyncio.run(one.acquire(0.0)) is None
            [thread] = waiting_threads() - before
            wait_until(lambda: one._thread is not None and one._thread.at_rest)  # noqa: B023
            wait_until(lambda: is_free(path))
            taken(one).release()
            os.unlink(f"{path}-turn")
            with Meanwhile(file_turn.__file__, step, one.close) as meanwhile:
                one.meet_busy()
            note(meanwhile)
            thread.join(30)
            assert not thread.is_alive()

    async def test_closed_while_a_thread_waits_in_vain(self, path: Path) -> None:
        """It keeps its place, a single one suffices, and it ends when it is closed at rest."""
        one, other, before = process(path), process(path), waiting_threads()
        request = taken(one)
        for _ in range(3):
            assert await other.acquire(0.0) is None
            await until(lambda: blocked(path, "turn") == 1)
            other.close()
        [thread] = waiting_threads() - before
        waiting = asyncio.create_task(other.acquire(10.0))
        request.release()
        second = await waiting
        assert second is not None
        other.close()
        second.release()
        await until(lambda: not thread.is_alive())

    async def test_made_by_somebody_else_at_the_same_moment(
        self, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Only the creator of a file sets its permissions, as it may be a link to something else.

        This process         | Another program
        open(): none there   |
                             | link("secret", "app.db-turn")
        creates it: exists   |
        """
        path.touch()
        path.chmod(0o666)
        secret = tmp_path / "secret"
        secret.touch()
        secret.chmod(0o600)
        really_open = os.open

        def open_(name: str, *arguments: int) -> int:
            try:
                return really_open(name, *arguments)
            except FileNotFoundError:
                os.link(secret, name)
                raise

        monkeypatch.setattr(os, "open", open_)
        request = taken(process(path))
        assert process(path).acquire_nowait() is None  # it works nevertheless
        request.release()
        assert secret.stat().st_mode & 0o777 == 0o600

    async def test_its_directory_is_gone(self, tmp_path: Path) -> None:
        """Another file in its place is no reason to fail, but one to look again."""
        directory = tmp_path / "data"
        directory.mkdir()
        one = process(directory / "app.db")
        request = taken(one)
        directory.rename(tmp_path / "elsewhere")
        directory.touch()
        before = one._turn
        one.meet_busy()
        assert one._turn is not before
        request.release()

    async def test_in_place(self, path: Path, calls: Calls) -> None:
        """Meeting SQLite's lock for another reason changes nothing."""
        one = process(path)
        request = taken(one)
        one.meet_busy()
        assert process(path).acquire_nowait() is None
        request.release()


class TestOtherProcesses:
    """Actual processes."""

    HOLD = """
import asyncio, sys
from sa_sqlite_pool.turn.file_turn import FileTurn

async def main():
    turn = FileTurn(sys.argv[1])
    request = turn.acquire_nowait()
    print("ready" if request else "taken", flush=True)
    if sys.argv[2:] == ["fork"]:
        import os
        if os.fork() == 0:
            print("none" if turn.acquire_nowait() is None else "some", flush=True)
            sys.stdin.readline()
            os._exit(0)
    sys.stdin.readline()

asyncio.run(main())
"""

    FORK = """
import asyncio, os, sys
from sa_sqlite_pool.turn.file_turn import FileTurn

def wait_and_fork(turn, rival):
    request = rival.acquire_nowait()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(turn.acquire(0.0))
    if os.fork() == 0:
        os.close(0)
        del rival
        loop = asyncio.new_event_loop()
        print("child waits", flush=True)
        print("served" if loop.run_until_complete(turn.acquire(10.0)) else "not served", flush=True)
        os._exit(0)
    assert sys.stdin.readline() == "go on\\n"
    request.release()
    os.wait()

wait_and_fork(FileTurn(sys.argv[1]), FileTurn(sys.argv[1]))
"""

    FORK_WHILE_OPENING = """
import os, sys, threading
from sa_sqlite_pool.system import forks
from sa_sqlite_pool.turn.file_turn import FileTurn

really_open, opening = os.open, threading.Event()

def slowly(*arguments):
    descriptor = really_open(*arguments)
    opening.set()
    while not forks.rest.forking:
        pass
    return descriptor

turn = FileTurn(sys.argv[1])
os.open = slowly
thread = threading.Thread(target=turn.acquire_nowait)
thread.start()
opening.wait()
child = os.fork()
if child == 0:
    found = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    os._exit(sum(name.endswith("app.db-turn") for name in found))
thread.join()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

    @pytest.fixture
    def holder(self, path: Path) -> Iterator[subprocess.Popen[str]]:
        with self.run(path) as process:
            yield process

    def test_it_ends_while_it_waits(self, path: Path) -> None:
        """No hang: its thread cannot be stopped, and nothing waits for that."""
        program = (
            "import asyncio, sys; from sa_sqlite_pool.turn.file_turn import FileTurn\n"
            "turn = FileTurn(sys.argv[1])\n"
            "print(asyncio.run(turn.acquire(0.0)))"
        )
        request = taken(process(path))
        done = subprocess.run(
            [sys.executable, "-c", program, str(path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "None\n", "")
        request.release()

    @ON_LINUX
    def test_a_child_waits_for_itself(self, path: Path) -> None:
        """The child does not have its parent's thread, and starts its own."""
        with subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", self.FORK, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as parent:
            assert parent.stdin is not None
            assert parent.stdout is not None
            assert parent.stdout.readline() == "child waits\n"
            parent.stdin.write("go on\n")
            parent.stdin.flush()
            assert parent.stdout.readline() == "served\n"
        assert parent.returncode == 0

    @ON_LINUX
    def test_a_child_is_forked_while_a_file_is_opened(self, path: Path) -> None:
        """Another thread opens it: the fork waits, and the child knows which file to close.

        An open file in the child would keep the lock if the parent were killed.
        """
        command = [sys.executable, "-W", "ignore", "-c", self.FORK_WHILE_OPENING, str(path)]
        assert subprocess.run(command, timeout=60, check=False).returncode == 0

    @contextlib.contextmanager
    def run(self, path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Run a process that holds the turn."""
        process = subprocess.Popen(
            [sys.executable, "-c", self.HOLD, str(path), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.stdin.close()
            process.stdout.close()
            process.kill()
            process.wait()

    @ON_LINUX
    async def test_it_is_named(self, path: Path, holder: subprocess.Popen[str]) -> None:
        """Clear waits: the holder is named, if the system reports it."""
        turn = process(path)
        assert turn.acquire_nowait() is None
        name = Path(f"/proc/{holder.pid}/comm").read_text().strip()
        assert turn.describe() == f"process {holder.pid} ({name})"

    @ON_LINUX
    async def test_statistics(self, path: Path, holder: subprocess.Popen[str]) -> None:
        """They name the other process that holds the turn."""
        turn = process(path)
        task = await start(path, turn)
        [name] = turn.holders()
        assert name.startswith(f"process {holder.pid} (")
        holder.kill()
        request = await task
        assert request is not None
        request.release()
        assert turn.holders() == []

    async def test_it_is_killed(self, path: Path, holder: subprocess.Popen[str]) -> None:
        """The system releases the lock, and the next in line acquires it."""
        turn = process(path)
        task = await start(path, turn)
        holder.kill()
        request = await task
        assert request is not None
        request.release()

    async def test_it_is_killed_while_a_child_lives(self, path: Path) -> None:
        """A forked child inherits nothing: it neither holds the turn nor blocks it."""
        with self.run(path, "fork") as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "none\n"
            task = await start(path, process(path))
            holder.kill()
            request = await task
            assert request is not None
            request.release()
