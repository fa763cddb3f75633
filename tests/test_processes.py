"""Several processes on one file: they write in turn, and killed ones do not block others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sa_sqlite_pool import DatabaseClosedError, SQLiteDatabase
from tests import writers
from tests.children import SECONDS, Child, needs_fork_server
from tests.helpers import UPDATE_FIRST
from tests.programs import Door
from tests.wal.others import ROOT
from tests.writers import (
    amount,
    in_line,
    opened,
    overtaken,
    read_modify_write,
    write,
)
from tests.writing_processes import (
    AT_ONCE,
    DOORS,
    SHORT,
    going_on,
    items,
    refused_after,
    told,
    writing,
)

__all__ = ["items"]

pytestmark = needs_fork_server


# -- one after the other ---------------------------------------------------------------------------


def test_engines_loops_and_processes_are_serialized(path: Path) -> None:
    """No write is refused, no update is lost, and transactions do not overlap.

    There are two doors on two loops in two threads of this process, and two more processes.
    """
    tasks, times = 3, 15

    async def main(name: str) -> None:
        async with opened(name, path) as door:
            await read_modify_write(door, path, tasks=tasks, times=times)

    children = [Child(writers.write_beside_others, d, path, tasks, times) for d in DOOR_NAMES[1:]]
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(2) as threads:
        for child in children:
            stack.enter_context(child)
            assert child.hear() == "open"
        for child in children:
            child.tell("begin")
        for done in [threads.submit(asyncio.run, main(name)) for name in DOOR_NAMES[:2]]:
            done.result(60)
        for child in children:
            child.hear()
    assert asyncio.run(final_amount(path)) == 4 * tasks * times


DOOR_NAMES = ("facade", "swap-in", "pools")


async def final_amount(path: Path) -> int:
    async with opened("pools", path) as door:
        return await amount(door)


def test_writers_never_meet_at_sqlites_lock(path: Path) -> None:
    """A holder of the turn finds the lock free, even if others write all the time: no polling."""
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(Child(writers.write_beside_others, door, path, 2, 20))
            for door in DOOR_NAMES
        ]
        assert {child.hear() for child in children} == {"open"}
        for child in children:
            child.tell("begin")
        assert [child.hear() for child in children] == [0, 0, 0]


@DOORS
async def test_a_busy_process_does_not_keep_the_turn_to_itself(
    path: Path, door: str, other: str
) -> None:
    """The first in line gets one of the next turns, before tasks that ask again."""

    async def stand_in_line(own: Door, counts: list[int]) -> None:
        while len(counts) < 30:
            await write(own)

    with Child(writers.hammer, other, path, 4) as busy, overtaken(path) as counts:
        async with opened(door, path) as own:
            assert await asyncio.to_thread(busy.hear) == "open"
            assert await told(busy, "begin") == "writes"
            await asyncio.wait_for(stand_in_line(own, counts), SECONDS)
            busy.tell("stop")
            await asyncio.to_thread(busy.ended)
    print(sorted(counts))  # noqa: T201 - for pytest -s
    assert sorted(counts)[26] <= 2  # nine of ten; the machine may stall for the others


@DOORS
async def test_a_commit_of_one_process_is_seen_by_the_next(
    path: Path, door: str, other: str
) -> None:
    """Writers of two processes take turns, and each sees all previous commits."""
    with writing(other, path) as child:
        async with opened(door, path) as own:
            for round_ in range(1, 6):
                await write(own)
                assert await told(child, "write") == "write"
                assert await amount(own) == 2 * round_


@DOORS
async def test_who_waits_goes_on_when_another_process_commits(
    path: Path, door: str, other: str
) -> None:
    """After a rollback, too, it continues at once, on the committed data."""
    for ending, expected in (("commit", 2), ("rollback", 3)):
        with writing(other, path) as child:
            async with opened(door, path) as own:
                assert await told(child, "hold") == "holds"
                waiting = asyncio.create_task(write(own))
                await in_line(own)
                assert not waiting.done()
                assert await told(child, ending) == ending
                await asyncio.wait_for(waiting, AT_ONCE)
                assert await amount(own) == expected


@pytest.mark.parametrize("door", DOOR_NAMES)
def test_a_forked_child_writes_beside_its_parent(path: Path, door: str) -> None:
    """Both use a database opened before the fork and write at the same time as a third process."""
    tasks, times = 2, 15
    with (
        Child(writers.write_beside_others, "facade", path, tasks, times) as third,
        Child(writers.fork_and_write, door, path, tasks, times) as parent,
    ):
        assert third.hear() == "open"
        third.tell("begin")
        exit_code, _ = parent.hear()
        assert exit_code == 0
        third.hear()
    assert asyncio.run(final_amount(path)) == 3 * tasks * times


# -- the dead and the stopped ----------------------------------------------------------------------


@DOORS
async def test_the_turn_of_a_killed_process_passes_on(path: Path, door: str, other: str) -> None:
    """A waiter here, and one in a third process, get it at once; the killed one is rolled back."""
    with writing(other, path) as holder, writing(door, path) as third:
        async with opened(door, path) as own:
            assert await told(holder, "hold") == "holds"
            waiting = asyncio.create_task(write(own))
            await in_line(own)
            assert await told(third, "queue") == "queued"
            holder.kill()
            killed = time.monotonic()
            await asyncio.wait_for(waiting, AT_ONCE)
            assert await asyncio.to_thread(third.hear) == "queue"
            assert time.monotonic() - killed < AT_ONCE
            assert await amount(own) == 2


@DOORS
async def test_a_process_killed_in_line_leaves_the_line(path: Path, door: str, other: str) -> None:
    """The next in line continues when the holder is done."""
    with writing(other, path) as holder, writing(other, path) as dead:
        async with opened(door, path) as own:
            assert await told(holder, "hold") == "holds"
            assert await told(dead, "queue") == "queued"
            waiting = asyncio.create_task(write(own))
            await in_line(own)
            dead.kill()
            assert await told(holder, "commit") == "commit"
            await asyncio.wait_for(waiting, AT_ONCE)
            assert await amount(own) == 2


@pytest.mark.parametrize("program", [writers.hold_and_fork, writers.hold_and_start_program])
async def test_children_of_a_killed_process_do_not_keep_its_turn(path: Path, program: Any) -> None:
    """Children have not inherited the turn, neither by a fork nor by starting a program."""
    with Child(program, "facade", path) as holder:
        grandchild = holder.hear()
        try:
            async with opened("facade", path) as own:
                holder.kill()
                await asyncio.wait_for(write(own), AT_ONCE)
                assert await amount(own) == 1
        finally:
            os.kill(grandchild, signal.SIGKILL)


@DOORS
async def test_a_process_that_is_stopped_while_it_has_the_turn(
    path: Path, door: str, other: str
) -> None:
    """Other writers wait for write_timeout; the loop, readers and later that process continue."""
    with (
        writing(other, path) as holder,
        writing(other, path, write_timeout=SHORT) as third,
    ):
        async with opened(door, path, write_timeout=SHORT) as own:
            assert await told(holder, "hold") == "holds"
            holder.stop()
            elsewhere = asyncio.create_task(told(third, "write"))
            async with going_on(own), refused_after(SHORT, r"waited 0\.\d+ s to write to app\.db"):
                await write(own)
            assert (await elsewhere).startswith("WriteTimeout: waited 0.")
            holder.go_on()
            assert await told(holder, "commit") == "commit"
            assert await told(third, "write") == "write"
            await asyncio.wait_for(write(own), AT_ONCE)
            assert await amount(own) == 3


async def test_a_process_that_is_stopped_in_line(path: Path) -> None:
    """It does not hold the turn, so processes behind it must not wait for it."""
    with writing("facade", path) as holder, writing("pools", path) as stopped:
        async with opened("facade", path) as own:
            assert await told(holder, "hold") == "holds"
            assert await told(stopped, "queue") == "queued"
            stopped.stop()
            waiting = asyncio.create_task(write(own))
            await in_line(own)
            assert await told(holder, "commit") == "commit"
            await asyncio.wait_for(waiting, AT_ONCE)


# -- giving up -------------------------------------------------------------------------------------


@DOORS
async def test_a_waiter_that_gives_up_leaves_nothing_behind(
    path: Path, door: str, other: str
) -> None:
    """After a time-out or a cancellation, others get the turn next, and it can ask again."""
    with writing(other, path) as holder, writing(other, path) as third:
        async with opened(door, path, write_timeout=SHORT) as own:
            assert await told(holder, "hold") == "holds"
            cancelled = asyncio.create_task(write(own))
            async with going_on(own):
                await in_line(own)
                cancelled.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await cancelled
                async with refused_after(SHORT, "to write to app.db"):
                    await write(own)
            assert await told(holder, "commit") == "commit"
            assert await told(third, "write") == "write"
            assert await told(holder, "write") == "write"
            await asyncio.wait_for(write(own), AT_ONCE)
            assert await amount(own) == 4


@DOORS
async def test_cancellations_at_any_moment_leave_nothing_behind(
    path: Path, door: str, other: str
) -> None:
    """This holds while another process holds the turn, acquires it and releases it."""
    with Child(writers.write_beside_others, other, path, 2, 60) as child:
        async with opened(door, path) as own:
            assert await asyncio.to_thread(child.hear) == "open"
            child.tell("begin")
            written = 0
            for laps in range(120):
                task = asyncio.create_task(write(own))
                for _ in range(laps):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                    written += 1
            await asyncio.to_thread(child.hear)
            await asyncio.wait_for(write(own), AT_ONCE)
            # A commit that was already sent when cancelled is done, but is not counted here.
            assert 120 + written + 1 <= await amount(own) <= 120 + 120 + 1


async def test_closing_does_not_wait_for_another_process(path: Path) -> None:
    """A waiting task gets an error; the file is closed, and the other process continues."""
    with writing("facade", path) as holder:
        db = SQLiteDatabase(path)
        await db.open()
        door = Door("facade", str(path))
        await door.open()
        assert await told(holder, "hold") == "holds"

        async def write_there() -> None:
            async with db.write() as session:
                await session.execute(UPDATE_FIRST)

        waiting = asyncio.create_task(write_there())
        await in_line(door)
        await asyncio.wait_for(db.close(), AT_ONCE)
        with pytest.raises(DatabaseClosedError):
            await waiting
        await door.close()
        assert await told(holder, "commit") == "commit"
        assert await told(holder, "write") == "write"


@pytest.mark.parametrize("door", DOOR_NAMES)
@pytest.mark.parametrize("program", ["end_in_line", "exit_in_line"])
def test_a_process_can_end_while_it_waits(path: Path, program: str, door: str) -> None:
    """Its task is cancelled, or never runs again, and the interpreter exits."""
    with writing("facade", path) as holder:
        assert holder.ask("hold") == "holds"
        done = subprocess.run(
            [sys.executable, "-m", "tests.writers", program, door, str(path)],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,  # less than its write_timeout
            cwd=ROOT,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "queued\n", "")
        assert holder.ask("commit") == "commit"
        assert holder.ask("write") == "write"
