"""Every way performs the operations, and notices if one was not performed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiosqlitepool.exceptions import PoolConnectionAcquireTimeoutError
from sqlalchemy import select, text

from benchmarks.databases import files, items
from benchmarks.loads import LOADS, one_row_writes, read_modify_write
from benchmarks.loads.base import Plan
from benchmarks.measuring import clocks
from benchmarks.measuring.clocks import Tally, WrongAnswerError
from benchmarks.running import rounds
from benchmarks.running.rounds import Effort
from benchmarks.ways import catalogue, contenders
from benchmarks.ways.contenders import STOCK, Concurrent, Contender, Measurement, Part, Work
from benchmarks.ways.engines import PRAGMAS, Pragmas
from benchmarks.ways.settings import Settings
from benchmarks.ways.steps import Operation, Run, Statement, Steps, check_count, check_rows

READERS = (*catalogue.READING, *catalogue.OTHER_STOCK_POOLS[:2])
WRITERS = (
    *catalogue.WRITING,
    *catalogue.OTHER_STOCK_POOLS[:2],
    catalogue.stock_immediate,
    catalogue.synchronous_immediate,
    catalogue.swap_in_for_writers,
)
CAREFUL = [one for one in read_modify_write.loads(Plan())[0].contenders if one.name != STOCK]


def named(contender: Contender) -> str:
    return contender.name


def run(contender: Contender, database: Path, part: Part, seconds: float = 0.01) -> Measurement:
    """Run the contender for a moment."""
    work = Work((part,), seconds=seconds, warm_up_per_task=1, seed=0, pragmas=PRAGMAS)
    return contender.run(database, work)[part.name]


def part(operation: Callable[[int], Steps], *, writes: bool = False) -> Part:
    return Part("part", "", "", tasks=2, rows=100, operation=operation, writes=writes)


@pytest.fixture(scope="module")
def to_read(tmp_path_factory: pytest.TempPathFactory) -> Path:
    database = tmp_path_factory.mktemp("ways") / "items.db"
    files.create(database, items.fill)
    return database


@pytest.mark.parametrize("contender", READERS, ids=named)
def test_a_wrong_row_is_an_error(contender: Contender, to_read: Path) -> None:
    """An operation that returns another row than the requested one has failed."""

    numbers = itertools.count()

    def read(key: int) -> Steps:
        found = yield next(items.read(key))
        check_rows(found, [items.row(key + next(numbers) % 2)])

    measured = run(contender, to_read, part(read)).measured
    assert set(measured.errors) == {"WrongAnswerError: other rows than those asked for"}
    assert measured.acknowledged > 0


@pytest.mark.parametrize("contender", WRITERS, ids=named)
def test_what_failed_is_not_in_the_file(contender: Contender, tmp_path: Path) -> None:
    """Every other transaction fails after its UPDATE: it is rolled back, and the next one works."""
    database = tmp_path / "counters.db"
    files.create(database, one_row_writes.fill)
    numbers = itertools.count()

    def write(key: int) -> Steps:
        yield from one_row_writes.write(key)
        if next(numbers) % 2:
            raise WrongAnswerError("on purpose")

    measurement = run(contender, database, part(write, writes=True))
    acknowledged = measurement.warm_up.acknowledged + measurement.measured.acknowledged
    errors = measurement.warm_up.errors + measurement.measured.errors
    assert set(errors) == {"WrongAnswerError: on purpose"}
    assert one_row_writes.moved(database) == acknowledged > 0


@pytest.mark.parametrize("contender", READERS, ids=named)
def test_what_the_database_refuses_is_counted(contender: Contender, to_read: Path) -> None:
    """It is counted with its reason, and other operations continue."""
    refused = Statement.of(text("SELECT price FROM nowhere"))

    def read(_key: int) -> Steps:
        yield Run(refused, {})

    measured = run(contender, to_read, part(read)).measured
    [reason] = measured.errors
    assert reason.endswith("no such table: nowhere")
    assert measured.acknowledged == 0 < len(measured.latencies_s)


def test_waiting_in_vain_for_a_connection_is_counted() -> None:
    """aiosqlitepool's error belongs to no common error family."""
    tally = Tally()
    with tally.operation():
        raise PoolConnectionAcquireTimeoutError
    assert tally.errors.total() == 1


@pytest.mark.parametrize("contender", CAREFUL, ids=named)
def test_no_update_is_lost(contender: Contender, tmp_path: Path) -> None:
    """Tasks that read the same row before writing it do so one after the other."""
    database = tmp_path / "counters.db"
    files.create(database, one_row_writes.fill)
    [load] = read_modify_write.loads(Plan())
    [add_one] = load.parts
    measurement = run(contender, database, replace(add_one, tasks=4, rows=1), seconds=0.05)
    assert measurement.warm_up.errors + measurement.measured.errors == {}
    acknowledged = measurement.warm_up.acknowledged + measurement.measured.acknowledged
    assert one_row_writes.moved(database) == acknowledged > 0


def test_only_what_was_done_in_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time starts when the last task is working, and operations that end after it do not count."""
    clock = Clock()
    monkeypatch.setattr(contenders, "perf_counter", clock)
    window = contenders._Window(tasks=2, seconds=5.0)
    window.enter()
    clock.now = 100.0
    assert window.is_open
    window.enter()
    assert window.is_open
    clock.now = 105.0
    assert not window.is_open
    tally = Tally()
    tally.acknowledged_at += [99.9, 100.0, 104.9, 105.0]
    assert window.count(tally) == 2


class Line:
    """A way that is free except for the first task, which is served after ``others`` operations.

    ``ended`` contains the numbers of the tasks that were served, in order.
    """

    def __init__(self, clock: Clock, others: int) -> None:
        self.ended: list[int] = []
        self._clock = clock
        self._others = others
        self._enough = asyncio.Event()
        self._numbers: dict[object, int] = {}

    async def read(self, operation: Operation, key: int) -> None:
        number = self._numbers.setdefault(asyncio.current_task(), len(self._numbers))
        await (asyncio.sleep(0) if number or self._enough.is_set() else self._enough.wait())
        self._clock.now += 1.0
        self.ended.append(number)
        if len(self.ended) == self._others:
            self._enough.set()
        if len(self.ended) % 4 == 0:
            raise WrongAnswerError("now and then")

    write = read

    async def settings(self, *, writes: bool) -> Settings:
        return Settings("Line", 1, 0, {}, "")


@pytest.mark.parametrize("in_line", [True, False])
def test_all_have_had_a_turn_before_the_clock_starts(
    monkeypatch: pytest.MonkeyPatch, in_line: bool
) -> None:
    """Operations that have ended by then are not measured, running ones are; nothing is lost."""
    clock = Clock()
    for module in (contenders, clocks):
        monkeypatch.setattr(module, "perf_counter", clock)
    lines: list[Line] = []

    @asynccontextmanager
    async def open_(_database: Path, _pragmas: Pragmas) -> AsyncIterator[Line]:
        lines.append(Line(clock, others=10))
        yield lines[0]

    work = Work(
        (replace(part(items.read), tasks=3), replace(part(items.read), name="other", tasks=2)),
        seconds=40.0,
        warm_up_per_task=0,
        seed=0,
        pragmas=PRAGMAS,
        in_line=in_line,
    )
    measurements = Concurrent("line", open_).run(Path(), work)
    [line] = lines
    before = line.ended.index(0) + 1 if in_line else 0
    warm_up = [one.warm_up for one in measurements.values()]
    measured = [one.measured for one in measurements.values()]
    assert sum(len(one.latencies_s) for one in warm_up) == before
    assert sum(len(one.latencies_s) for one in measured) == len(line.ended) - before
    assert sum(one.acknowledged for one in warm_up) == before - before // 4
    for tallies in (warm_up, measured):
        for one in tallies:
            assert one.acknowledged + one.errors.total() == len(one.latencies_s)
    in_time = sum(one.in_time or 0 for one in measurements.values())
    started = float(before)
    counted = [at for one in measured for at in one.acknowledged_at if at < started + 40.0]
    assert in_time == len(counted) > 0
    assert len(line.ended) > before + 40
    assert all(one.acknowledged_at for one in measured)


def test_turns_are_measured_in_line() -> None:
    """Other loads are not: there, the first tasks' operations are among the others."""
    plan = Plan()
    loads = [load for make in LOADS.values() for load in make(plan)]
    in_line = {load.name for load in loads if rounds._work(load, Effort(1, 1.0), 0).in_line}
    assert in_line == {"turns 50", "turns 5000"}


class Clock:
    """A replacement for ``perf_counter``."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_same_keys_for_all_contenders_of_a_round() -> None:
    """The keys differ between rounds, and between parts."""
    one = part(items.read)

    def keys(seed: int) -> list[int]:
        work = Work((one,), seconds=1, warm_up_per_task=1, seed=seed, pragmas=PRAGMAS)
        endless: Iterator[int] = work.keys(one)
        return list(itertools.islice(endless, 20))

    assert keys(1) == keys(1) != keys(2)


def test_the_warm_up_is_bounded() -> None:
    """Thousands of tasks do not need thousands of operations to open a few connections."""
    work = Work((), seconds=1, warm_up_per_task=3, seed=0, pragmas=PRAGMAS)
    counts = [work.warm_up(Part("", "", "", tasks, 1, items.read)) for tasks in (20, 5_000)]
    assert counts == [60, 250]


def test_statements_have_no_values_of_their_own() -> None:
    """A driver would not receive these values."""
    with pytest.raises(AssertionError, match="no other values"):
        Statement.of(select(items.ITEMS).where(items.ITEMS.c.id == 1))


def test_another_number_of_rows_is_an_error() -> None:
    """If the driver does not report the number, the books reveal it."""
    check_count(1)
    check_count(None)
    with pytest.raises(WrongAnswerError, match="2 rows changed instead of 1"):
        check_count(2)
