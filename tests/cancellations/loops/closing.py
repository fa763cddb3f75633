"""A database is closed repeatedly while the tasks of several loops use it."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

from sqlalchemy.exc import OperationalError, StatementError

from sa_sqlite_pool import DatabaseClosedError
from tests.campaigns import a_moment
from tests.helpers import turn_of

from ..doors import Door, facade, left_out
from ..moments import any_moment
from ..noise import listening
from ..oracle import Fate, Ledger, check_file, create_tables
from ..table import Operation, everything
from ..tasks import (
    REST_SECONDS,
    TASKS,
    Load,
    OnProgress,
    Tasks,
    all_within,
    run_in_loop,
    until_nothing,
)
from .kinds import MakeLoop
from .threads import in_thread

_LOAD = Load(("facade",), everything, any_moment)
# The last is raised by aiosqlite, on a raw connection.
_ERRORS_OF_CLOSING = (DatabaseClosedError, OperationalError, ValueError)
_TIMEOUTS = (0.0, 0.02, 0.3)
_SLACK_SECONDS = 3.0  # the half second for operations told to stop, and for a slow machine
# These run several transactions: an error of one says nothing about the others.
_GROUPS = ("functions together", "one of a group fails")


@dataclass(frozen=True)
class ClosingResult:
    """The number of closes, and the outcomes of the tasks and of their writes."""

    seed: int
    rounds: int
    seconds: float
    errors: Mapping[str, int]
    acknowledged: int
    rolled_back: int
    unknown: int


def run_closing(
    directory: Path,
    *,
    rounds: int,
    seed: int,
    others: Mapping[str, MakeLoop],
    on_progress: OnProgress = lambda _: None,
) -> ClosingResult:
    """Close a number of databases, each while this loop and the others use it.

    Raise ``AssertionError`` with the seed for anything that is lost, left behind, late or noisy.
    """
    started, errors, fates = time.monotonic(), Counter[str](), Counter[Fate]()
    for number in range(rounds):
        path = directory / f"closing-{seed}-{number}.db"
        one = _Round(path, f"{seed} {number}", others)
        try:
            with listening() as noise:
                run_in_loop(one.main(), asyncio.new_event_loop())
                gc.collect()
                assert not noise, f"{len(noise)} noises, among them:\n" + "\n".join(noise[:3])
        except Exception as error:
            raise AssertionError(
                f"seed {seed}, round {number}: {type(error).__name__}: {error}"
            ) from error
        errors += one.errors
        fates += one.ledger.fates()
        on_progress(1)
    return ClosingResult(
        seed=seed,
        rounds=rounds,
        seconds=round(time.monotonic() - started, 2),
        errors=dict(errors.most_common()),
        acknowledged=fates[Fate.ACKNOWLEDGED],
        rolled_back=fates[Fate.ROLLED_BACK],
        unknown=fates[Fate.UNKNOWN],
    )


class _Round:
    """One database, from the creation of its tables to its close."""

    def __init__(self, path: Path, seed: str, others: Mapping[str, MakeLoop]) -> None:
        self._path = path
        self._seed = seed
        self._others = others
        self._threads_before = set(threading.enumerate())
        self.ledger = Ledger()
        self.errors: Counter[str] = Counter()

    async def main(self) -> None:
        create_tables(self._path)
        turn = turn_of(self._path)
        door = await facade(self._path, lambda _: None)
        await door.warm_up()
        await self._use_and_close(door)
        await until_nothing(partial(left_out, self._path, turn, [door]))
        check_file(self.ledger, self._path)
        del turn, door  # the thread that waits for other processes ends with them
        await asyncio.get_running_loop().shutdown_default_executor()
        await until_nothing(self._threads)

    async def _use_and_close(self, door: Door) -> None:
        assert door.database is not None
        operations = [operation for operation in everything([door]) if operation.ways]
        rng, closing = Random(self._seed), threading.Event()
        here, *others = [
            _TasksUntilClosed(self.ledger, closing, operations)
            for _ in range(1 + len(self._others))
        ]
        works = [
            in_thread(make, partial(tasks.until_closed, f"{self._seed} {name}"), name, [door])
            for tasks, (name, make) in zip(others, self._others.items(), strict=True)
        ]
        works.append(asyncio.ensure_future(here.until_closed(self._seed)))
        await a_moment(0.2, rng)
        closing.set()
        # Several tasks close at the same time, and wait for the same end.
        timeout = rng.choice(_TIMEOUTS)
        close = partial(door.database.close, timeout)
        one_other = list(self._others.values())[:1]
        closes = [in_thread(make, close, "closes", [door]) for make in one_other]
        closes.append(asyncio.ensure_future(close()))
        await all_within(timeout + _SLACK_SECONDS, closes)
        await all_within(REST_SECONDS, works)
        for tasks in (here, *others):
            self.errors += tasks.errors

    def _threads(self) -> Iterator[str]:
        gc.collect()
        for thread in set(threading.enumerate()) - self._threads_before:
            yield f"thread {thread.name}"


class _TasksUntilClosed(Tasks):
    """Tasks of one loop, which learn from errors that the database was closed."""

    def __init__(
        self, ledger: Ledger, closing: threading.Event, operations: list[Operation]
    ) -> None:
        super().__init__(_LOAD, ledger, lambda _: None)
        self._closing = closing
        self._operations = operations

    async def until_closed(self, seed: str) -> None:
        """Return when as many tasks have been refused as run concurrently."""
        await self._until(
            lambda: self.errors["DatabaseClosedError"] >= TASKS, self._operations, seed
        )

    def _judge(self, error: BaseException, name: str, tokens: list[int]) -> None:
        """Accept that a close refuses or stops tasks; refused writes must not be in the file."""
        # SQLAlchemy wraps errors raised while it replaces a connection that it has discarded.
        cause = error.orig if type(error) is StatementError else error
        if not (self._closing.is_set() and isinstance(cause, _ERRORS_OF_CLOSING)):
            super()._judge(error, name, tokens)
        if isinstance(cause, DatabaseClosedError) and not name.startswith(_GROUPS):
            for token in tokens:
                self._ledger.refuse(token)
