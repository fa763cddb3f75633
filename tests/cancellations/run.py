"""The tasks that are cancelled, the rests in between, and the result."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from tests.helpers import turn_of

from .doors import DOORS, Door, left_out
from .loops.kinds import MakeLoop
from .loops.threads import in_thread
from .moments import any_moment, near_of_next_task, up_to_60_ms
from .neighbour import neighbour
from .noise import listening
from .oracle import Fate, Ledger, check_file, create_tables
from .table import everything, fresh_reads, mixed
from .tasks import (
    BATCH_SECONDS,
    REST_SECONDS,
    Load,
    OnProgress,
    Tasks,
    all_within,
    cancel_others,
    other_tasks,
    run_in_loop,
    stacks,
    until_nothing,
)

BATCH = 2_000
_PROBE_SECONDS = 20
# Less than the close_timeout of a facade: everything has ended by then, also in closed loops.
_CLOSE_SECONDS = 4


@dataclass(frozen=True)
class Result:
    """The operations, and the outcomes of their writes.

    ``by_operation`` counts cancellations; ``reopened`` counts connections opened after the warm-up;
    ``errors`` are only counted for a stock engine, for others they are failures.
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


EVERYTHING = Load(("swap-in", "engines", "facade", "names", "cold"), everything, any_moment)
Work = Callable[[], Coroutine[Any, Any, None]]
NO_LOOPS: Mapping[str, MakeLoop] = {}
MIXED_DOORS = ("facade", "swap-in", "engines", "stock")


def mixed_load(door: str) -> Load:
    """Return a load of short writes and scans through one door, cancelled within 60 ms."""
    return Load((door,), lambda doors: mixed(doors[0]), up_to_60_ms, strict=door != "stock")


def run(
    directory: Path,
    *,
    count: int,
    seed: int,
    load: Load = EVERYTHING,
    others: Mapping[str, MakeLoop] = NO_LOOPS,
    on_progress: OnProgress = lambda _: None,
) -> Result:
    """Run ``count`` cancellations on a new file in ``directory``, distributed over all loops.

    ``others`` are the event loops, by name, that use it beside this one. Raise ``AssertionError``
    with the seed for anything that is lost, left behind, late or noisy.
    """
    path = directory / f"cancellations-{seed}.db"
    create_tables(path)
    with listening() as noise:
        campaign = Campaign(path, seed, load, others, noise, on_progress)
        try:
            return run_in_loop(campaign.main(count), asyncio.new_event_loop())
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error


class Campaign:
    """One run: its doors, its ledger, its counts."""

    def __init__(
        self,
        path: Path,
        seed: int,
        load: Load,
        others: Mapping[str, MakeLoop],
        noise: list[str],
        on_progress: OnProgress,
    ) -> None:
        self._path = path
        self._seed = seed
        self._load = load
        self._others = others
        self._noise = noise
        self._on_progress = on_progress
        self._noting = threading.Lock()
        self._turn = turn_of(path)
        self._threads_before = set(threading.enumerate())
        self._ledger = Ledger()
        self._doors: list[Door] = []
        self._opened: list[int] = []  # appended to by the connections' threads
        self._by_operation: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()

    async def main(self, count: int) -> Result:
        try:
            await all_within(REST_SECONDS, [asyncio.ensure_future(self._open())])
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
        """Close the doors in any case; return the stacks if that takes too long."""
        await cancel_others()
        closing = [asyncio.ensure_future(door.close()) for door in self._doors]
        if not closing:
            return ""
        _, late = await asyncio.wait(closing, timeout=_CLOSE_SECONDS)
        return stacks(late)

    async def _end(self) -> None:
        """Check the state after all doors are closed."""
        if not self._load.strict:
            self._errors["noise"] = len(self._noise)
            return
        check_file(self._ledger, self._path)
        del self._turn, self._doors  # the thread that waits for other processes ends with them
        gc.collect()
        await asyncio.get_running_loop().shutdown_default_executor()
        await until_nothing(self._threads)
        self._check_noise()

    def _threads(self) -> Iterator[str]:
        """Yield threads that the doors have left behind, once no timer refers to their calls."""
        gc.collect()
        for thread in set(threading.enumerate()) - self._threads_before:
            yield f"thread {thread.name}"

    # -- the tasks ------------------------------------------------------------------------------

    async def _cancel_until(self, target: int) -> None:
        """Run one batch of tasks, in all loops, until there are ``target`` cancellations.

        The other loops are new, and are closed at the end of the batch.
        """
        share = -(-(target - self._cancellations) // (1 + len(self._others)))
        operations, batch = self._load.choose(self._doors), f"{self._seed} {target}"
        here, *others = [
            Tasks(self._load, self._ledger, self._note) for _ in range(1 + len(self._others))
        ]
        async with AsyncExitStack() as stack:
            if self._load.strict:
                rng = Random(f"{batch} another process")
                await stack.enter_async_context(neighbour(self._path, rng))
            works = [
                self._in_thread(name, partial(tasks.cancel, operations, share, f"{batch} {name}"))
                for name, tasks in zip(self._others, others, strict=True)
            ]
            works.append(asyncio.ensure_future(here.cancel(operations, share, batch)))
            await all_within(BATCH_SECONDS + REST_SECONDS, works)
        for tasks in (here, *others):
            self._by_operation += tasks.cancelled
            self._errors += tasks.errors

    def _in_thread(self, name: str, work: Work) -> asyncio.Future[None]:
        return in_thread(self._others[name], work, name, self._doors)

    def _note(self, cancellations: int) -> None:
        with self._noting:
            self._on_progress(cancellations)

    # -- the rests ------------------------------------------------------------------------------

    async def _rest(self) -> None:
        """Check that everything is at rest, nothing is lost, every door works, without noise."""
        if not self._load.strict:
            return
        gc.collect()
        await until_nothing(self._left_out)
        check_file(self._ledger, self._path)
        await self._probe()
        self._check_noise()

    def _left_out(self) -> Iterator[str]:
        yield from left_out(self._path, self._turn, self._doors)
        if tasks := other_tasks():
            yield stacks(tasks)

    def _check_noise(self) -> None:
        gc.collect()
        noise = self._noise
        assert not noise, f"{len(noise)} noises, among them:\n" + "\n".join(noise[:3])

    async def _probe(self) -> None:
        near_of_next_task()
        for name, write_and_read in fresh_reads(self._doors).items():
            probe = asyncio.create_task(write_and_read(self._ledger, Random(0)), name=name)
            await all_within(_PROBE_SECONDS, [probe])


def _targets(count: int) -> Iterator[int]:
    yield from range(BATCH, count, BATCH)
    yield count
