"""The tasks that are cancelled, the rests in between, and the result."""

from __future__ import annotations

import asyncio
import gc
import io
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from tests.helpers import turn_of
from tests.turn.locks import is_free

from .doors import DOORS, Door, turn_left
from .moments import Moment, any_moment, near_of_next_task, soon_again, up_to_60_ms
from .neighbour import neighbour
from .noise import listening
from .oracle import Fate, Ledger, create_tables, integrity
from .table import Operation, everything, fresh_reads, mixed

T = TypeVar("T")
OnProgress = Callable[[int], object]
"""Called with the number of cancellations since the last call."""

TASKS = 12
BATCH = 2_000
_BATCH_SECONDS = 60
_REST_SECONDS = 30
_PROBE_SECONDS = 20


@dataclass(frozen=True)
class Result:
    """What was done, and what became of what was written.

    ``by_operation`` counts cancellations; ``reopened`` are the connections opened after all were
    warm; ``errors`` are counted of a stock engine only, of others they are failures.
    """

    seed: int
    cancellations: int
    seconds: float
    by_operation: Mapping[str, int]
    reopened: int
    acknowledged: int
    rolled_back: int
    unknown: int
    errors: Mapping[str, int]


@dataclass(frozen=True)
class Load:
    """What is done, and when it is cancelled. ``strict``: what goes wrong is a failure."""

    doors: tuple[str, ...]
    choose: Callable[[list[Door]], list[Operation]]
    moment: Moment
    strict: bool = True


EVERYTHING = Load(("swap-in", "engines", "facade", "names", "cold"), everything, any_moment)
MIXED_DOORS = ("facade", "swap-in", "engines", "stock")


def mixed_load(door: str) -> Load:
    """Short writes and scans through one door, cancelled at any moment up to 60 ms."""
    return Load((door,), lambda doors: mixed(doors[0]), up_to_60_ms, strict=door != "stock")


def run(
    directory: Path,
    *,
    count: int,
    seed: int,
    load: Load = EVERYTHING,
    on_progress: OnProgress = lambda _: None,
) -> Result:
    """``count`` cancellations on a new file in ``directory``.

    Raises ``AssertionError`` with the seed for whatever is lost, left behind, late or noisy.
    """
    path = directory / f"cancellations-{seed}.db"
    create_tables(path)
    with listening() as noise:
        campaign = Campaign(path, seed, load, noise, on_progress)
        try:
            return _run_in_loop(campaign.main(count))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error


def _run_in_loop(main: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run``, but what hangs is left behind instead of waited for."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.run_until_complete(_cancel_others())
        loop.close()


async def _cancel_others() -> None:
    """Whatever tasks there are; those that do not end soon are given up."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=_PROBE_SECONDS)


class Campaign:
    """One run: its doors, its books, its counts."""

    def __init__(
        self, path: Path, seed: int, load: Load, noise: list[str], on_progress: OnProgress
    ) -> None:
        self._path = path
        self._seed = seed
        self._load = load
        self._noise = noise
        self._on_progress = on_progress
        self._turn = turn_of(path)
        self._threads_before = set(threading.enumerate())
        self._ledger = Ledger()
        self._doors: list[Door] = []
        self._opened: list[int] = []  # appended to by the connections' threads
        self._by_operation: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()

    async def main(self, count: int) -> Result:
        try:
            await _all_within(_REST_SECONDS, [asyncio.ensure_future(self._open())])
            warm, started = len(self._opened), time.monotonic()
            for target in _targets(count):
                await self._cancel_until(target)
                await self._rest()
            seconds = time.monotonic() - started
            reopened = len(self._opened) - warm
        finally:
            late = await self._close()
        assert not late, f"a door does not close:\n{late}"
        await self._end()
        return self._result(seconds, reopened)

    def _result(self, seconds: float, reopened: int) -> Result:
        fates = self._ledger.fates()
        return Result(
            seed=self._seed,
            cancellations=self._cancellations,
            seconds=round(seconds, 2),
            by_operation=dict(self._by_operation.most_common()),
            reopened=reopened,
            acknowledged=fates[Fate.ACKNOWLEDGED],
            rolled_back=fates[Fate.ROLLED_BACK],
            unknown=fates[Fate.UNKNOWN],
            errors=dict(self._errors.most_common()),
        )

    @property
    def _cancellations(self) -> int:
        return self._by_operation.total()

    # -- before and after -----------------------------------------------------------------------

    async def _open(self) -> None:
        for name in self._load.doors:
            door = await DOORS[name](self._path, lambda _: self._opened.append(1))
            self._doors.append(door)
            await door.warm_up()

    async def _close(self) -> str:
        """Close the doors, whatever has happened; where that takes long, the stacks."""
        await _cancel_others()
        closing = [asyncio.ensure_future(door.close()) for door in self._doors]
        if not closing:
            return ""
        _, late = await asyncio.wait(closing, timeout=_REST_SECONDS)
        return _stacks(late)

    async def _end(self) -> None:
        """What is so when all doors are closed."""
        if not self._load.strict:
            self._errors["noise"] = len(self._noise)
            return
        self._check_file()
        del self._turn, self._doors  # the thread that waits for other processes ends with them
        gc.collect()
        await asyncio.get_running_loop().shutdown_default_executor()
        await _until_nothing(self._threads)
        self._check_noise()

    def _threads(self) -> Iterator[str]:
        """Threads that the doors have left behind, once no timer refers to their calls."""
        gc.collect()
        for thread in set(threading.enumerate()) - self._threads_before:
            yield f"thread {thread.name}"

    # -- the tasks ------------------------------------------------------------------------------

    async def _cancel_until(self, target: int) -> None:
        """One batch: let tasks cancel until there are ``target`` cancellations."""
        operations = self._load.choose(self._doors)
        async with AsyncExitStack() as stack:
            if self._load.strict:
                rng = Random(f"{self._seed} {target} another process")
                await stack.enter_async_context(neighbour(self._path, rng))
            workers = [
                asyncio.ensure_future(
                    self._work(operations, target, Random(f"{self._seed} {target} {number}"))
                )
                for number in range(TASKS)
            ]
            await _all_within(_BATCH_SECONDS, workers)

    async def _work(self, operations: list[Operation], target: int, rng: Random) -> None:
        weights = [operation.weight for operation in operations]
        while self._cancellations < target:
            operation = rng.choices(operations, weights)[0]
            await self._cancel_one(operation, rng)

    async def _cancel_one(self, operation: Operation, rng: Random) -> None:
        way, begin = rng.choice(list(operation.ways.items()))
        near = near_of_next_task()
        task = asyncio.create_task(begin(self._ledger, rng), name=f"{operation.name}, {way}")
        await self._load.moment(task, near, rng)
        if cancelled := task.cancel():
            self._by_operation[operation.name] += 1
            self._on_progress(1)
            if rng.random() < 0.25:
                await soon_again(task, rng)
                task.cancel()
        await asyncio.wait({task})
        self._judge(task, cancelled)

    def _judge(self, task: asyncio.Task[None], cancelled: bool) -> None:
        """The task was cancelled, or did what it should; any other end is wrong."""
        if task.cancelled():
            assert cancelled, f"{task.get_name()}: CancelledError, and nobody cancelled it"
        elif error := task.exception():
            self._errors[type(error).__name__] += 1
            if self._load.strict:
                raise AssertionError(f"{task.get_name()}: {error!r}") from error

    # -- the rests ------------------------------------------------------------------------------

    async def _rest(self) -> None:
        """Nothing is left out, nothing is lost, every door works, and all was quiet."""
        if not self._load.strict:
            return
        gc.collect()
        await _until_nothing(self._left_out)
        self._check_file()
        await self._probe()
        self._check_noise()

    def _left_out(self) -> Iterator[str]:
        yield from turn_left(self._turn)
        if not is_free(self._path):
            yield "the turn between processes"
        for door in self._doors:
            yield from door.left_out()
        if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            yield _stacks(tasks)

    def _check_file(self) -> None:
        wrong = [*self._ledger.discrepancies(self._path), *integrity(self._path)]
        assert not wrong, f"{len(wrong)} wrong in the file:\n" + "\n".join(wrong[:10])

    def _check_noise(self) -> None:
        gc.collect()
        noise = self._noise
        assert not noise, f"{len(noise)} noises, among them:\n" + "\n".join(noise[:3])

    async def _probe(self) -> None:
        near_of_next_task()
        for name, write_and_read in fresh_reads(self._doors).items():
            probe = asyncio.create_task(write_and_read(self._ledger, Random(0)), name=name)
            await _all_within(_PROBE_SECONDS, [probe])


def _targets(count: int) -> Iterator[int]:
    yield from range(BATCH, count, BATCH)
    yield count


async def _until_nothing(left: Callable[[], Iterator[str]]) -> None:
    """SQLAlchemy shields closes in tasks of their own, so what is left may be on its way."""
    give_up = time.monotonic() + _REST_SECONDS
    while found := list(left()):
        assert time.monotonic() < give_up, "left: " + "\n".join(found)
        await asyncio.sleep(0)


async def _all_within(seconds: float, tasks: list[asyncio.Task[None]]) -> None:
    """Await the tasks; raise what the first of them raises, or the stacks of all that hang."""
    done, late = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        await task
    assert not late, f"not done after {seconds} s:\n{_stacks(asyncio.all_tasks())}"


def _stacks(tasks: Iterable[asyncio.Task[Any]]) -> str:
    stacks = io.StringIO()
    for task in tasks:
        task.print_stack(file=stacks)
    return stacks.getvalue()
