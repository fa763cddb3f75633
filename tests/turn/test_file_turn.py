"""The turn between processes. Two objects on a file are to each other as two processes are."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sa_sqlite_pool.errors import DatabaseNotUsableError
from sa_sqlite_pool.turn import file_turn
from sa_sqlite_pool.turn.file_turn import Claim, FileTurn
from tests.helpers import until
from tests.turn.locks import (
    Calls,
    blocked,
    calls,
    is_free,
    wait_until,
    waiting_threads,
)
from tests.turn.steps import Meanwhile, every_step

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
    return bool(turn._waiting._answers)


async def test_a_free_turn_costs_two_system_calls(path: Path, calls: Calls) -> None:
    """One to take it and one to give it back, again and again; no thread is started."""
    turn, before = process(path), waiting_threads()
    for number in range(1, 4):
        taken(turn).give_back()
        assert calls.count == 2 * number
    assert not waiting_threads() - before


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


async def test_its_thread_is_another_holder(path: Path) -> None:
    """What the thread has, nobody takes beside it: not in the same process either."""
    one, other = process(path), process(path)
    claim = taken(one)
    task = await start(path, other)
    claim.give_back()
    second = await task
    assert second is not None
    assert other.take_nowait() is None
    second.give_back()
    await until(lambda: is_free(path))


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


class TestStoppedInLine:
    """A process that is first in line, and was stopped there (Ctrl-Z, a debugger)."""

    async def test_it_is_passed(self, path: Path) -> None:
        """It neither takes the free turn nor lets others: after half a second they go past it.

        Holder          | First in line | One
                        | has the line, |
                        | is stopped    | waits for the line
        gives it back   |               |
                        |               | after half a second: is the turn free?
        """
        holder, first, one = process(path), process(path), process(path)
        claim = taken(holder)
        assert first._line.take_nowait()
        task = await start(path, one)
        claim.give_back()
        assert one._waiting is not None
        one._waiting._wake()  # the time has passed
        passed = await task
        assert passed is not None
        assert holder.take_nowait() is None
        passed.give_back()
        first._line.give_back()
        await until(lambda: is_free(path))

    async def test_the_turn_is_not_free(self, path: Path) -> None:
        """Who has it is not disturbed; the wait goes on."""
        holder, one = process(path), process(path)
        claim = taken(holder)
        task = await start(path, one)
        assert one._waiting is not None
        one._waiting._wake()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
        claim.give_back()
        second = await task
        assert second is not None
        second.give_back()

    async def test_sooner_the_next_time(self, path: Path) -> None:
        """Nobody waits half a second each time; and again as long when the line has moved on."""
        holder, first, one = process(path), process(path), process(path)
        assert first._line.take_nowait()
        for expected in (file_turn._PATIENT_SECONDS, file_turn._IMPATIENT_SECONDS):
            assert one._patience == expected
            claim = taken(holder)
            task = asyncio.create_task(one.wait(10.0))
            await asyncio.sleep(0)
            claim.give_back()
            assert one._waiting is not None
            one._waiting._wake()
            passed = await task
            assert passed is not None
            passed.give_back()
        claim = taken(holder)
        first._line.give_back()
        task = asyncio.create_task(one.wait(10.0))
        await until(lambda: one._patience == file_turn._PATIENT_SECONDS)
        claim.give_back()
        last = await task
        assert last is not None
        last.give_back()


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

    async def test_cancelled_after_it_was_granted(self, path: Path, loop_errors: list[Any]) -> None:
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
        assert loop_errors == []

    async def test_time_is_over_after_it_was_granted(
        self, path: Path, loop_errors: list[Any]
    ) -> None:
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
        assert loop_errors == []

    async def test_sent_away_at_any_moment(self, path: Path) -> None:
        """By another thread, while the time is over: with that error or without, never a turn."""
        clock = Clock()
        one, other, owner = process(path), process(path, clock), object()
        claim = taken(one)
        for step, note in every_step():
            waiting = other.wait(10.0, owner)
            waiting.send(None)
            assert other._waiting is not None
            ends: list[object] = []

            def time_is_over() -> None:
                assert other._waiting is not None
                clock.now += 10.0
                other._waiting._wake()
                ends.append(outcome(waiting))  # noqa: B023

            with Meanwhile(file_turn.__file__, step, time_is_over) as meanwhile:
                other.send_away(owner, lambda: ValueError("closed"))
            note(meanwhile)
            if not meanwhile.happened:
                time_is_over()
            assert ends in ([None], ["closed"]), step
        claim.give_back()

    async def test_sent_away_with_the_turn(self, path: Path) -> None:
        """Too late: it goes on with it."""
        one, other, owner = process(path), process(path), object()
        claim = taken(one)
        task = asyncio.create_task(other.wait(10.0, owner))
        await until(lambda: blocked(path, "turn"))
        claim.give_back()
        wait_until(lambda: granted(other))
        other.send_away(owner, lambda: ValueError("closed"))
        second = await task
        assert second is not None
        second.give_back()

    async def test_withdrawn_while_it_is_granted(self, path: Path) -> None:
        """One of both gives the lock back: the thread, or who does not want it any more."""
        lock = process(path)._turn
        for step, note in every_step():
            claim = Claim(lock, lambda: None, None)
            claim.prepare()
            assert lock.take_nowait()
            with Meanwhile(file_turn.__file__, step, claim.withdraw) as meanwhile:
                was_granted = claim.grant()
            note(meanwhile)
            if not meanwhile.happened:
                claim.withdraw()
            assert is_free(path) == was_granted, step
            lock.give_back()

    async def test_cancelled_while_it_is_sent_away(self, path: Path, calls: Calls) -> None:
        """It has nothing, and gives nothing back: the lock may be the next one's by then."""
        clock = Clock()
        one, other, owner = process(path), process(path, clock), object()
        claim = taken(one)
        for step, note in every_step():
            waiting = other.wait(10.0, owner)
            waiting.send(None)
            await until(lambda: blocked(path, "turn") == 1)
            before = calls.count
            with Meanwhile(file_turn.__file__, step, waiting.close) as meanwhile:
                other.send_away(owner, lambda: ValueError("closed"))
            note(meanwhile)
            waiting.close()
            assert calls.count == before, step
        claim.give_back()

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

    def test_one_of_a_dead_loop_ends_beside_another(self, path: Path) -> None:
        """Who waits now is still found by who sends it away."""
        one, other, owner = process(path), process(path), object()
        loop = asyncio.new_event_loop()

        async def begin() -> tuple[Claim, asyncio.Task[Claim | None]]:
            return taken(one), await start(path, other)

        claim, dead = loop.run_until_complete(begin())
        dead._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()

        async def wait() -> None:
            task = asyncio.create_task(other.wait(10.0, owner))
            await asyncio.sleep(0)
            with contextlib.suppress(RuntimeError):  # from its timer, which has no loop either
                dead.get_coro().close()
            other.send_away(owner, lambda: ValueError("closed"))
            with pytest.raises(ValueError, match="closed"):
                await asyncio.wait_for(task, 5)

        asyncio.run(wait())
        claim.give_back()

    async def test_no_timer_is_left(self, path: Path) -> None:
        """Once served: it would keep the files open until the time is over."""
        one, other = process(path), process(path)
        claim = taken(one)
        task = asyncio.create_task(other.wait(1000.0))
        await asyncio.sleep(0)
        claim.give_back()
        second = await task
        assert second is not None
        second.give_back()
        kept = weakref.ref(other)
        del other, task, second
        gc.collect()
        await until(lambda: kept() is None)


def outcome(waiting: Any) -> object:
    """What has come of ``turn.wait()``, whose future is done."""
    try:
        waiting.send(None)
    except StopIteration as end:
        return end.value
    except ValueError as error:
        return str(error)
    raise AssertionError("it waits")


@pytest.fixture
async def loop_errors() -> list[Any]:
    """What the event loop would only log."""
    errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    return errors


async def test_the_thread_ends_with_the_turn(path: Path) -> None:
    """A file that is closed leaves no thread behind."""
    one, other = process(path), process(path)
    claim = taken(one)
    before = waiting_threads()
    assert await other.wait(0.0) is None
    [thread] = waiting_threads() - before
    del other
    claim.give_back()
    await until(lambda: not thread.is_alive())
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
        with pytest.raises(DatabaseNotUsableError, match="is a symbolic link"):
            taken(process(path))
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

    async def test_the_line_is_removed(self, path: Path) -> None:
        """There must be one line for all."""
        one = process(path)
        claim = taken(one)
        assert one._line.take_nowait()
        one._line.give_back()
        os.unlink(f"{path}-line")
        one.meet_busy()
        other = process(path)
        assert other._line.take_nowait()
        assert not one._line.take_nowait()
        other._line.give_back()
        claim.give_back()

    async def test_removed_while_somebody_waits(self, path: Path) -> None:
        """The thread that waits for the lock of a removed file ends; the next waits for the new."""
        one, other, before = process(path), process(path), waiting_threads()
        claim = taken(one)
        assert other.take_nowait() is None
        assert await other.wait(0.0) is None
        await until(lambda: blocked(path, "turn") == 1)
        [old] = waiting_threads() - before
        os.unlink(f"{path}-turn")
        third = taken(process(path))
        other.meet_busy()
        task = await start(path, other)
        claim.give_back()
        await until(lambda: not old.is_alive())
        await asyncio.sleep(0)
        assert not task.done()
        third.give_back()
        second = await task
        assert second is not None
        second.give_back()

    async def test_made_by_somebody_else_at_the_same_moment(
        self, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Only who has made a file sets its permissions: it might be a link to something else.

        This process         | Somebody
        open(): none there   |
                             | link("secret", "app.db-turn")
        makes it: is there   |
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
        claim = taken(process(path))
        assert process(path).take_nowait() is None  # it serves all the same
        claim.give_back()
        assert secret.stat().st_mode & 0o777 == 0o600

    async def test_its_directory_is_gone(self, tmp_path: Path) -> None:
        """And something else is there: that is no reason to fail, but one to look anew."""
        directory = tmp_path / "data"
        directory.mkdir()
        one = process(directory / "app.db")
        claim = taken(one)
        directory.rename(tmp_path / "elsewhere")
        directory.touch()
        before = one._turn
        one.meet_busy()
        assert one._turn is not before
        claim.give_back()

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

    async def test_letting_go_fails(self, path: Path, calls: Calls) -> None:
        """The thread lives on, and serves the next."""
        one, other = process(path), process(path)
        claim = taken(one)
        assert await other.wait(0.0) is None
        await until(lambda: blocked(path, "turn") == 1)
        before = calls.count
        calls.fail = OSError(errno.EIO, "Input/output error")
        del one, claim
        gc.collect()  # closed, and so unlocked
        await until(lambda: calls.count == before + 2)
        calls.fail = None
        second = await asyncio.wait_for(other.wait(10.0), 5)
        assert second is not None
        second.give_back()

    async def test_giving_back_fails(self, path: Path, calls: Calls) -> None:
        """The transaction has ended all the same."""
        claim = taken(process(path))
        calls.fail = OSError(errno.EIO, "Input/output error")
        claim.give_back()

    async def test_no_more_threads(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who cannot wait is told so; who comes later can."""
        one, other = process(path), process(path)
        claim = taken(one)

        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await other.wait(10.0)
        task = await start(path, other)
        claim.give_back()
        second = await asyncio.wait_for(task, 5)
        assert second is not None
        second.give_back()

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

    FORK = """
import asyncio, os, sys
from sa_sqlite_pool.turn.file_turn import FileTurn

def wait_and_fork(turn, rival):
    claim = rival.take_nowait()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(turn.wait(0.0))
    if os.fork() == 0:
        os.close(0)
        del rival
        loop = asyncio.new_event_loop()
        print("child waits", flush=True)
        print("served" if loop.run_until_complete(turn.wait(10.0)) else "not served", flush=True)
        os._exit(0)
    assert sys.stdin.readline() == "go on\\n"
    claim.give_back()
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
    while not forks.rest._forking:
        pass
    return descriptor

turn = FileTurn(sys.argv[1])
os.open = slowly
thread = threading.Thread(target=turn.take_nowait)
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
        """No hang: nothing can stop its thread, and nothing waits for that."""
        program = (
            "import asyncio, sys; from sa_sqlite_pool.turn.file_turn import FileTurn\n"
            "turn = FileTurn(sys.argv[1])\n"
            "print(asyncio.run(turn.wait(0.0)))"
        )
        claim = taken(process(path))
        done = subprocess.run(
            [sys.executable, "-c", program, str(path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "None\n", "")
        claim.give_back()

    @ON_LINUX
    def test_a_child_waits_for_itself(self, path: Path) -> None:
        """It has no thread of its parent's, and starts its own."""
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
        """By another thread: the fork waits, and the child knows what to close.

        What it kept open would keep the lock, should the parent be killed.
        """
        command = [sys.executable, "-W", "ignore", "-c", self.FORK_WHILE_OPENING, str(path)]
        assert subprocess.run(command, timeout=60, check=False).returncode == 0

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
