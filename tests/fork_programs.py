"""Programs that fork. ``python -m tests.fork_programs PROGRAM DOOR PATH`` runs one.

Each prints a line for each result; ``tests/test_fork.py`` has the expected ones. A child that hangs
is ended by its alarm, and its exit code shows that.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import multiprocessing
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from sqlalchemy import exc

from tests.helpers import turn_of, until_waiting
from tests.programs import COUNT, INSERT, WAIT_SECONDS, Door, in_another_process, say

CHILD_SECONDS = 10  # a child that has not ended by then hangs


def fork(child: Callable[[], object]) -> int:
    """Run ``child`` in a child process that exits like an interpreter, and return its id."""
    with warnings.catch_warnings():  # from 3.12 on, about threads, which are the subject here
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        return pid
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.alarm(CHILD_SECONDS)
    try:
        child()
    except Exception as error:
        traceback.print_exc()
        say("child failed:", type(error).__name__, str(error).splitlines()[0])
        sys.exit(3)
    gc.collect()
    sys.exit(0)


def ended(pid: int) -> int:
    """Return the exit code of a child: 0, 3 after an error, -14 if it hung."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def beside(path: str) -> list[str]:
    """Return which of the files beside the database exist and are not empty."""
    names = [path + suffix for suffix in ("-shm", "-wal")]
    return [name[-3:] for name in names if os.path.exists(name) and os.path.getsize(name)]


class ParentLoop(asyncio.SelectorEventLoop):
    """A loop that a child does not close.

    asyncio closes an unreferenced loop, and thereby removes its wake-up pipe from the epoll that
    parent and child share: no thread could wake the parent any more.
    """

    def __del__(self) -> None:
        pass


class Parent:
    """A door, the loop in which it is used, and the file."""

    def __init__(self, door: str, path: str) -> None:
        self.path = path
        self.door = Door(door, path)
        self.loop = ParentLoop()
        self.run(self.door.prepare())

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(main)

    def child_works(self) -> None:
        """Use the inherited door in a child, which opens its own working connections."""
        self.door.opened.clear()
        say("child counts", asyncio.run(self.door.add_and_count()))
        say("own connections", set(self.door.opened) == {os.getpid()})

    def finish(self) -> None:
        say("parent counts", self.run(self.door.add_and_count()))
        say("files", *beside(self.path))
        self.run(self.door.close())
        self.loop.close()
        say("check", in_another_process(self.path, "PRAGMA integrity_check"))
        say("rows", in_another_process(self.path, "SELECT count(*) FROM t"))


def idle(parent: Parent) -> None:
    say("exit", ended(fork(parent.child_works)))
    parent.finish()


def checkpointing(parent: Parent) -> None:
    """Fork while the keeper of the log has its connections open."""
    keeper = parent.door.pools[0].keeper
    assert keeper is not None
    using = keeper.checkpointing.connected()
    parent.run(using.__aenter__())

    def work() -> None:
        # Without a task around it, the child's interpreter may warn when it collects the context.
        warnings.filterwarnings("ignore", "coroutine method 'aclose'", RuntimeWarning)
        parent.child_works()

    say("exit", ended(fork(work)))
    parent.run(using.__aexit__(None, None, None))
    parent.finish()


def untouched(parent: Parent) -> None:
    """Fork a child that ends without using anything, while the parent reads."""
    parent.run(_open_reader(parent))
    before = beside(parent.path)
    say("exit", ended(fork(lambda: None)))
    say("same files", beside(parent.path) == before)
    parent.run(_kept[0].__aexit__(None, None, None))
    parent.finish()


def with_multiprocessing(parent: Parent) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process = multiprocessing.get_context("fork").Process(target=parent.child_works)
        process.start()
    process.join(CHILD_SECONDS)
    say("exit", process.exitcode)
    if process.exitcode is None:
        process.kill()
    parent.finish()


def preload(parent: Parent) -> None:
    """Fork three workers of an application that was opened before the fork."""

    async def serve() -> None:
        for _ in range(20):
            await parent.door.add()

    workers = [fork(lambda: asyncio.run(serve())) for _ in range(3)]
    say("exit", *map(ended, workers))
    parent.finish()


def children_survive_the_close(parent: Parent) -> None:
    """Close everything in the parent between two commits of its child."""
    ready, closed = os.pipe(), os.pipe()

    async def work() -> None:
        await parent.door.add()
        os.write(ready[1], b".")
        os.read(closed[0], 1)
        await parent.door.add()

    pid = fork(lambda: asyncio.run(work()))
    os.close(ready[1])
    os.read(ready[0], 1)
    parent.run(parent.door.close())
    os.write(closed[1], b".")
    say("exit", ended(pid))
    say("rows", in_another_process(parent.path, "SELECT count(*) FROM t"))
    say("check", in_another_process(parent.path, "PRAGMA integrity_check"))


def the_parent_ends_first(parent: Parent) -> None:
    gone = os.pipe()

    def work() -> None:
        os.close(gone[1])
        os.read(gone[0], 1)  # returns when the parent ends
        parent.child_works()

    fork(work)


def inherited(parent: Parent) -> None:
    """Try to continue the parent's write transaction in a child."""
    using = parent.door.write()
    writer = parent.run(using.__aenter__())
    parent.run(writer.execute(INSERT))
    parent.run(_open_reader(parent))

    async def child() -> None:
        for attempt in (writer.execute(INSERT), _kept[1].execute(COUNT)):
            try:
                await attempt
            except exc.OperationalError as error:
                say("execute", "before the fork()" in str(error))
        await writer.close()

    say("exit", ended(fork(lambda: asyncio.run(child()))))
    _parent_commits(parent, using)


def commit_inherited(parent: Parent) -> None:
    """Commit the parent's transaction as the first action of a child."""
    using = parent.door.write()
    writer = parent.run(using.__aenter__())
    parent.run(writer.execute(INSERT))

    async def child() -> None:
        try:
            await writer.commit()
        except exc.OperationalError as error:
            say("commit", "before the fork()" in str(error))
        else:
            say("commit", "pretended")

    say("exit", ended(fork(lambda: asyncio.run(child()))))
    _parent_commits(parent, using)


_kept: list[Any] = []


async def _open_reader(parent: Parent) -> None:
    """Leave a read transaction open, with a partly fetched result."""
    using = parent.door.read()
    reader = await using.__aenter__()
    _kept.extend((using, reader, await reader.stream(COUNT)))


def _parent_commits(parent: Parent, using: AbstractAsyncContextManager[Any]) -> None:
    parent.run(using.__aexit__(None, None, None))
    say("others", in_another_process(parent.path, "BEGIN IMMEDIATE", timeout=0))
    if _kept:
        parent.run(_kept[0].__aexit__(None, None, None))
    parent.finish()


async def is_refused(use: Coroutine[Any, Any, object]) -> bool:
    """Whether SQLite's file could not be used here; an error of another kind is raised."""
    try:
        await use
    except exc.OperationalError as error:
        if "was forked while a connection to that file was in use" not in str(error):
            raise
        return True
    return False


def keeps_its_lock(parent: Parent) -> None:
    using = parent.door.write()
    parent.run(parent.run(using.__aenter__()).execute(INSERT))
    say("exit", ended(fork(lambda: None)))
    say("others", in_another_process(parent.path, "BEGIN IMMEDIATE", timeout=0))
    parent.run(using.__aexit__(None, None, None))
    parent.finish()


def locked(parent: Parent) -> None:
    """Write in a child to the file on which a transaction was open at the fork."""
    using = parent.door.write()
    parent.run(parent.run(using.__aenter__()).execute(INSERT))
    ready = os.pipe()

    async def child() -> None:
        turn = turn_of(Path(parent.path))
        say("turn", turn.holder, turn.waiting)
        os.write(ready[1], b".")
        say("refused", await is_refused(parent.door.add_and_count()))

    pid = fork(lambda: asyncio.run(child()))
    os.read(ready[0], 1)
    parent.run(using.__aexit__(None, None, None))
    say("exit", ended(pid))
    parent.finish()


def waiters(parent: Parent) -> None:
    """Fork while the turn is held, and tasks wait for it."""
    turn = turn_of(Path(parent.path))

    async def line_up() -> tuple[Any, list[asyncio.Task[None]]]:
        permit = await turn.acquire(WAIT_SECONDS)
        tasks = [asyncio.create_task(parent.door.add()) for _ in range(3)]
        await until_waiting(3, turn)
        return permit, tasks

    async def go_on() -> None:
        turn.release(permit)
        await asyncio.gather(*tasks)

    def child() -> None:
        if in_use:
            say("refused", asyncio.run(is_refused(parent.door.add_and_count())))
        else:
            parent.child_works()

    permit, tasks = parent.run(line_up())
    in_use = any(len(pool.checkouts) for pool in parent.door.pools)
    say("exit", ended(fork(child)))
    say("parent's line", turn.holder is permit, turn.waiting)
    parent.run(go_on())
    parent.finish()


class Hammer(threading.Thread):
    """A thread that runs statements continuously, in its own loop."""

    def __init__(self, use: Callable[[], Coroutine[Any, Any, object]]) -> None:
        super().__init__()
        self._use = use
        self._over = False
        self.begun = threading.Event()
        self.rounds = 0

    def run(self) -> None:
        asyncio.run(self._hammer())

    async def _hammer(self) -> None:
        await asyncio.gather(*(self._repeat() for _ in range(4)))

    async def _repeat(self) -> None:
        while not self._over:
            await self._use()
            self.rounds += 1
            self.begun.set()

    def end(self) -> None:
        self._over = True
        self.join()


async def _work_twice(parent: Parent) -> None:
    """In the parent's file, unless that is refused; and in another, with the same SQLite."""
    await is_refused(parent.door.add_and_count())
    other = Door("facade", f"{parent.path}-{os.getpid()}")
    await other.prepare()
    assert await other.add_and_count() == 2
    await other.close()


def _hammered(parent: Parent, use: Callable[[], Coroutine[Any, Any, object]], forks: int) -> None:
    hammer = Hammer(use)
    hammer.start()
    hammer.begun.wait()
    codes: list[int] = []
    try:
        while len(codes) < forks and not any(codes):
            codes.append(ended(fork(lambda: asyncio.run(_work_twice(parent)))))
    finally:
        hammer.end()
    say("exit", *sorted(set(codes)), "of", len(codes))
    say("hammered", hammer.rounds > forks)


def hammered_by_reads(parent: Parent, forks: str) -> None:
    _hammered(parent, parent.door.be_busy, int(forks))
    say("check", in_another_process(parent.path, "PRAGMA integrity_check"))


def hammered_by_writes(parent: Parent, forks: str) -> None:
    _hammered(parent, parent.door.add, int(forks))
    say("check", in_another_process(parent.path, "PRAGMA integrity_check"))


def main(programs: dict[str, Any], program: str, door: str, path: str, *more: str) -> None:
    programs[program](Parent(door, path), *more)


if __name__ == "__main__":
    main(globals(), *sys.argv[1:])
