"""The Python instructions and calls of a read and of a write, by the package that they belong to.

``python -m benchmarks.instructions``: a point read and a one-row write, through one way after the
other, by one task, or by several that wait at the same time (``--tasks 20``). Unlike a time, the
count is nearly the same on every machine, however busy. It does not include SQLite, the kernel and
other code written in C.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Annotated, Any

import typer

from sa_sqlite_pool.closures import read_group, shared_reader
from sa_sqlite_pool.execution import loop_budget

from .databases import files, items
from .loads import one_row_writes
from .report.output import console, table
from .ways import catalogue, threads
from .ways.contenders import SYNCHRONOUS, Concurrent, Contender, OneThread
from .ways.engines import PRAGMAS
from .ways.steps import Operation

OWNERS = ("sqlalchemy", "asyncio", "aiosqlite", "sa_sqlite_pool")
OTHERS = "other Python"
_NOT_COUNTED = "benchmarks"

# Operations before counting starts: the facts of statements are known then, and caches are warm.
_WARM_UP = 100

_SESSIONS = OneThread(f"{SYNCHRONOUS}, Session", threads.through(threads.Sessions))

READING: tuple[Contender, ...] = (
    catalogue.stock,
    catalogue.readers,
    catalogue.swap_in,
    catalogue.drop_in,
    catalogue.both_engines,
    *catalogue.READING_CLOSURES,
    catalogue.synchronous,
    catalogue.prepared_reads,
    _SESSIONS,
)
WRITING: tuple[Contender, ...] = (
    catalogue.stock,
    catalogue.writer,
    catalogue.swap_in,
    catalogue.drop_in,
    catalogue.both_engines,
    *catalogue.WRITING_CLOSURES,
    catalogue.synchronous,
    _SESSIONS,
)


# Counting slows Python down by this factor. Whatever the package does after some milliseconds, it
# should still do after the same number of instructions.
_SLOWER = 20


def _slow_clocks_down() -> None:
    names = "HOLDING", "LAP", "PATIENCE", "SLICE", "TOGETHER"
    for module in (read_group, shared_reader, loop_budget):
        for name in (f"{one}_SECONDS" for one in names):
            if hasattr(module, name):
                setattr(module, name, _SLOWER * getattr(module, name))


class Instructions:
    """Counts what runs from ``begin()`` to ``end()`` in this thread and threads started within."""

    def __init__(self) -> None:
        self.by_owner: Counter[str] = Counter()
        self.calls = 0
        self._counts = False
        self._owners: dict[str, str] = {}

    def __enter__(self) -> Instructions:
        self._before = sys.gettrace(), threading.gettrace()
        sys.settrace(self._on_call)
        threading.settrace(self._on_call)
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        here, threads = self._before
        sys.settrace(here)
        threading.settrace(threads)

    def begin(self) -> None:
        gc.collect()
        gc.disable()  # the finalizers that it calls would run at arbitrary moments
        self._counts = True

    def forget(self) -> None:
        """Reset the counts. From Python 3.12 on, functions are counted from their second call."""
        self.by_owner.clear()
        self.calls = 0

    def end(self) -> None:
        self._counts = False
        gc.enable()

    def _on_call(self, frame: FrameType, _event: str, _arg: object) -> Any:
        if not self._counts:
            return None
        owner = self._owner(frame.f_code.co_filename)
        if owner == _NOT_COUNTED:
            return None
        self.calls += 1
        frame.f_trace_lines, frame.f_trace_opcodes = False, True

        def on_instruction(_frame: FrameType, event: str, _arg: object) -> Any:
            self.by_owner[owner] += event == "opcode"
            return on_instruction

        return on_instruction

    def _owner(self, filename: str) -> str:
        if filename not in self._owners:
            parts = PurePath(filename).parts
            known = (name for name in (*OWNERS, _NOT_COUNTED) if name in parts)
            self._owners[filename] = next(known, OTHERS)
        return self._owners[filename]


def count(
    contender: Contender,
    database: Path,
    operation: Operation,
    *,
    writes: bool,
    times: int,
    tasks: int = 1,
) -> Instructions:
    """Count ``times`` operations by each of ``tasks`` tasks, one after the other."""
    with Instructions() as instructions:
        asyncio.run(_count(contender, database, operation, writes, times, tasks, instructions))
    return instructions


async def _count(
    contender: Contender,
    database: Path,
    operation: Operation,
    writes: bool,
    times: int,
    tasks: int,
    instructions: Instructions,
) -> None:
    async with _opened(contender, database, writes=writes) as operate:
        for key in range(1, _WARM_UP + 1):
            await operate(operation, key)
        instructions.begin()
        await operate(operation, 1)
        instructions.forget()

        async def work() -> None:
            for key in range(1, times + 1):
                await operate(operation, key)

        others = [asyncio.ensure_future(work()) for _ in range(tasks - 1)]
        await work()
        for other in others:
            await other
        instructions.end()


@asynccontextmanager
async def _opened(
    contender: Contender, database: Path, *, writes: bool
) -> AsyncIterator[Callable[[Operation, int], Awaitable[None]]]:
    if isinstance(contender, OneThread):
        with contender.open(database, PRAGMAS) as synchronous:
            at_once = synchronous.write if writes else synchronous.read

            async def operate(operation: Operation, key: int) -> None:
                at_once(operation, key)

            yield operate
    else:
        assert isinstance(contender, Concurrent)
        async with contender.open(database, PRAGMAS) as way:
            yield way.write if writes else way.read


def main(
    times: Annotated[int, typer.Option(min=1, help="Operations of each task.")] = 50,
    tasks: Annotated[int, typer.Option(min=1, help="Tasks that work at the same time.")] = 1,
) -> None:
    """Count Python's instructions of a read and of a write."""
    _slow_clocks_down()
    _print("a point read", READING, items.read, items.fill, times, tasks, writes=False)
    write, fill = one_row_writes.write, one_row_writes.fill
    _print("a one-row write", WRITING, write, fill, times, tasks, writes=True)


def _print(
    title: str,
    contenders: tuple[Contender, ...],
    operation: Operation,
    fill: Callable[[Any], None],
    times: int,
    tasks: int,
    *,
    writes: bool,
) -> None:
    made = table(f"{title}: Python's instructions", "", *OWNERS, OTHERS, "all", "calls")
    for contender in contenders:
        with TemporaryDirectory(prefix="benchmarks-") as directory:
            database = Path(directory) / "one.db"
            files.create(database, fill)
            at_once = 1 if isinstance(contender, OneThread) else tasks
            found = count(contender, database, operation, writes=writes, times=times, tasks=at_once)
        figures = [*(found.by_owner[name] for name in (*OWNERS, OTHERS)), found.by_owner.total()]
        each = (f"{figure / (times * at_once):,.0f}" for figure in (*figures, found.calls))
        made.add_row(contender.name, *each)
    console().print(made)


if __name__ == "__main__":
    typer.run(main)
