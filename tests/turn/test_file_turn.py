"""The turn between processes. Two objects on a file are to each other as two processes are."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sa_sqlite_pool.turn import file_turn
from sa_sqlite_pool.turn.file_turn import Claim, FileTurn
from tests.helpers import until
from tests.turn.locks import Calls, blocked, calls, is_free, wait_until, waiting_threads

__all__ = ["calls"]
ON_LINUX = pytest.mark.skipif(
    not Path("/proc/locks").exists(), reason="the system does not tell who waits"
)


class Clock:
    """Monotonic seconds, as a test likes them."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


def process(path: Path, clock: Clock | None = None) -> FileTurn:
    return FileTurn(str(path)) if clock is None else FileTurn(str(path), clock)


def taken(turn: FileTurn) -> Claim:
    claim = turn.take_nowait()
    assert claim is not None
    return claim


async def start(path: Path, turn: FileTurn, timeout: float = 10.0) -> asyncio.Task[Claim | None]:
    """A task that waits, for the turn or for the line, in the kernel."""
    before = blocked(path, "turn") + blocked(path, "line")
    task = asyncio.create_task(turn.wait(timeout))
    await until(lambda: blocked(path, "turn") + blocked(path, "line") > before)
    return task


def granted(turn: FileTurn) -> bool:
    assert turn._waiting is not None
    return turn._waiting._answered.locked()


async def test_a_free_turn_costs_two_system_calls(path: Path, calls: Calls) -> None:
    """One to take it and one to give it back, again and again; no thread is started."""
    turn = process(path)
    for number in range(1, 4):
        taken(turn).give_back()
        assert calls.count == 2 * number
    assert waiting_threads() == 0


async def test_one_process_at_a_time(path: Path) -> None:
    """Serialized writes: who does not have it does not get it, until it is given back."""
    one, other = process(path), process(path)
    claim = taken(one)
    assert other.take_nowait() is None
    claim.give_back()
    taken(other).give_back()


async def test_given_back_twice(path: Path) -> None:
    """A claim that has ended is nothing to whoever has the turn now."""
    one, other = process(path), process(path)
    claim = taken(one)
    claim.give_back()
    second = taken(one)
    claim.give_back()
    assert other.take_nowait() is None
    second.give_back()


async def test_waiting_in_the_kernel(path: Path) -> None:
    """No polling: who waits is woken when the turn is given back; the loop goes on meanwhile."""
    one, other = process(path), process(path)
    claim = taken(one)
    task = await start(path, other)
    assert not task.done()
    claim.give_back()
    second = await task
    assert second is not None
    assert one.take_nowait() is None
    second.give_back()
    assert is_free(path)


@ON_LINUX
async def test_processes_are_served_in_order(path: Path) -> None:
    """Fair turns: one waits for the turn, the others for the line."""
    holder = taken(process(path))
    served: list[int] = []

    async def wait(number: int, turn: FileTurn) -> None:
        claim = await turn.wait(10.0)
        assert claim is not None
        served.append(number)
        claim.give_back()

    tasks = []
    for number in range(5):
        tasks.append(asyncio.create_task(wait(number, process(path))))
        in_line = number  # the first waits for the turn
        await until(lambda: (blocked(path, "turn"), blocked(path, "line")) == (1, in_line))  # noqa: B023
    holder.give_back()
    await asyncio.gather(*tasks)
    assert served == list(range(5))


class TestPoliteness:
    """Who has had the turn leaves it to those who wait, and are not awake yet."""

    async def test_after_others_were_seen(self, path: Path, calls: Calls) -> None:
        """Fair turns.

        A                       | B
                                | has the line, is not awake yet
        take_nowait() → None    |
        """
        clock = Clock()
        one, other = process(path, clock), process(path)
        claim = taken(other)
        assert one.take_nowait() is None  # seen
        claim.give_back()
        taken(one).give_back()
        assert other._line.take_nowait()
        assert one.take_nowait() is None
        other._line.give_back()
        taken(one).give_back()

    async def test_for_a_moment_only(self, path: Path) -> None:
        """A process that has died in line, or was stopped there, keeps nobody waiting."""
        clock = Clock()
        one, other = process(path, clock), process(path)
        claim = taken(other)
        assert one.take_nowait() is None
        claim.give_back()
        taken(one).give_back()
        assert other._line.take_nowait()
        clock.now += file_turn._POLITE_SECONDS
        taken(one).give_back()

    async def test_costs_nothing_where_nobody_is(self, path: Path, calls: Calls) -> None:
        """A second after others were seen, it is two system calls again."""
        clock = Clock()
        one, other = process(path, clock), process(path)
        claim = taken(other)
        assert one.take_nowait() is None
        claim.give_back()
        taken(one).give_back()
        before = calls.count
        taken(one).give_back()
        assert calls.count == before + 4
        clock.now += file_turn._REMEMBER_SECONDS
        before = calls.count
        taken(one).give_back()
        taken(one).give_back()
        assert calls.count == before + 4


class TestGivingUp:
    """Nothing of a waiter stays behind."""

    async def test_time_is_over(self, path: Path) -> None:
        """It gets nothing, and others get the turn when it is free."""
        one, other = process(path), process(path)
        claim = taken(one)
        assert await other.wait(0.0) is None
        claim.give_back()
        await until(lambda: is_free(path))

    async def test_the_next_has_its_place(self, path: Path) -> None:
        """The thread waits in the kernel already: the next of the process goes on from there."""
        one, other = process(path), process(path)
        claim = taken(one)
        task = await start(path, other)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        again = asyncio.create_task(other.wait(10.0))
        await asyncio.sleep(0)
        assert blocked(path, "turn") == 1
        assert blocked(path, "line") == 0
        claim.give_back()
        second = await again
        assert second is not None
        second.give_back()
        await until(lambda: is_free(path))

    async def test_cancelled_after_it_was_granted(self, path: Path) -> None:
        """Clean cancellation.

        Thread           | Task
        has the turn     | (woken, has not run yet)
                         | cancelled: gives it back
        """
        one, other = process(path), process(path)
        claim = taken(one)
        task = await start(path, other)
        claim.give_back()
        wait_until(lambda: granted(other))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: is_free(path))

    async def test_time_is_over_after_it_was_granted(self, path: Path) -> None:
        """What has come is taken: the time-out was for waiting."""
        one, other = process(path), process(path)
        claim = taken(one)
        task = await start(path, other)
        claim.give_back()
        wait_until(lambda: granted(other))
        assert other._waiting is not None
        other._waiting._wake()  # the timer is first
        second = await task
        assert second is not None
        assert not is_free(path)
        second.give_back()

    async def test_sent_away(self, path: Path) -> None:
        """Those who wait for what is being closed get the error; others stay."""
        one, other = process(path), process(path)
        claim = taken(one)
        owner, somebody = object(), object()
        task = asyncio.create_task(other.wait(10.0, owner))
        await asyncio.sleep(0)
        other.send_away(somebody, lambda: ValueError("not meant"))
        other.send_away(owner, lambda: ValueError("closed"))
        with pytest.raises(ValueError, match="closed"):
            await task
        claim.give_back()
        await until(lambda: is_free(path))

    def test_its_loop_is_closed(self, path: Path) -> None:
        """The thread gives back what nobody can take any more."""
        one, other = process(path), process(path)
        loop = asyncio.new_event_loop()

        async def begin() -> tuple[Claim, asyncio.Task[Claim | None]]:
            return taken(one), await start(path, other)

        claim, task = loop.run_until_complete(begin())
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()
        claim.give_back()
        wait_until(lambda: is_free(path))


async def test_the_thread_ends_with_the_turn(path: Path) -> None:
    """A file that is closed leaves no thread behind."""
    one, other = process(path), process(path)
    claim = taken(one)
    before = waiting_threads()
    assert await other.wait(0.0) is None
    assert waiting_threads() == before + 1
    del other
    claim.give_back()
    await until(lambda: waiting_threads() == before)
    assert is_free(path)


class TestFiles:
    """The files beside the database."""

    async def test_who_may_write_may_lock(self, path: Path) -> None:
        """Owner and permissions are the database's."""
        path.touch(0o600)
        path.chmod(0o660)
        if os.geteuid() == 0:
            os.chown(path, 12345, 12346)
        taken(process(path)).give_back()
        found, model = os.stat(f"{path}-turn"), path.stat()
        assert (found.st_mode, found.st_uid, found.st_gid) == (
            model.st_mode,
            model.st_uid,
            model.st_gid,
        )
        assert found.st_size == 0

    async def test_a_link_is_not_followed(self, path: Path, tmp_path: Path) -> None:
        """In a directory that others may write to, nothing is made elsewhere for them."""
        elsewhere = tmp_path / "elsewhere"
        Path(f"{path}-turn").symlink_to(elsewhere)
        taken(process(path)).give_back()
        assert not elsewhere.exists()

    async def test_removed_while_in_use(self, path: Path) -> None:
        """Who meets SQLite's lock, although the turn is its own, looks whether that is why."""
        one = process(path)
        claim = taken(one)
        os.unlink(f"{path}-turn")
        other = taken(process(path))  # of another file by the same name
        one.meet_busy()
        claim.give_back()
        assert one.take_nowait() is None
        other.give_back()
        taken(one).give_back()

    async def test_in_place(self, path: Path, calls: Calls) -> None:
        """Meeting SQLite's lock for another reason changes nothing."""
        one = process(path)
        claim = taken(one)
        one.meet_busy()
        assert process(path).take_nowait() is None
        claim.give_back()


class TestNoLocks:
    """A file system without locks: SQLite's own is enough, but for the order."""

    async def test_go_on_and_say_so_once(
        self, path: Path, calls: Calls, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The warning names the file, the reason, what it means and what to do."""
        calls.fail = OSError(errno.ENOLCK, "No locks available")
        turn = process(path)
        for _ in range(2):
            taken(turn).give_back()
        [record] = caplog.records
        assert record.levelno == logging.WARNING
        assert str(path) in record.message
        assert "No locks available" in record.message
        assert "Put the database on a local file system" in record.message

    async def test_while_waiting(
        self, path: Path, calls: Calls, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Also where the thread finds out."""
        calls.fail = OSError(errno.ENOLCK, "No locks available")
        turn = process(path)
        claim = await turn.wait(10.0)
        assert claim is not None
        claim.give_back()
        assert len(caplog.records) == 1

    async def test_no_directory(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Opening the database says that better."""
        taken(process(tmp_path / "missing" / "app.db")).give_back()
        assert caplog.records == []


class TestOtherProcesses:
    """The real thing."""

    HOLD = """
import asyncio, sys
from sa_sqlite_pool.turn.file_turn import FileTurn

async def main():
    turn = FileTurn(sys.argv[1])
    claim = turn.take_nowait()
    print("ready" if claim else "taken", flush=True)
    if sys.argv[2:] == ["fork"]:
        import os
        if os.fork() == 0:
            print("none" if turn.take_nowait() is None else "some", flush=True)
            sys.stdin.readline()
            os._exit(0)
    sys.stdin.readline()

asyncio.run(main())
"""

    @pytest.fixture
    def holder(self, path: Path) -> Iterator[subprocess.Popen[str]]:
        with self.run(path) as process:
            yield process

    @contextlib.contextmanager
    def run(self, path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A process that has the turn."""
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
        """Clear waits: who has it, where the system tells."""
        turn = process(path)
        assert turn.take_nowait() is None
        name = Path(f"/proc/{holder.pid}/comm").read_text().strip()
        assert turn.describe() == f"process {holder.pid} ({name})"

    async def test_it_is_killed(self, path: Path, holder: subprocess.Popen[str]) -> None:
        """The system takes the lock back, and the next in line has it."""
        turn = process(path)
        task = await start(path, turn)
        holder.kill()
        claim = await task
        assert claim is not None
        claim.give_back()

    async def test_it_is_killed_while_a_child_lives(self, path: Path) -> None:
        """A forked child keeps nothing of its parent's: it neither has the turn nor blocks it."""
        with self.run(path, "fork") as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "none\n"
            task = await start(path, process(path))
            holder.kill()
            claim = await task
            assert claim is not None
            claim.give_back()
