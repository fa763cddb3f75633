"""Read transactions, and the gap in which none begins."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from sa_sqlite_pool.stats.log import SnapshotsStatistics
from sa_sqlite_pool.turn.permit import Permit
from sa_sqlite_pool.turn.snapshots import Gap, Snapshot, Snapshots
from tests.helpers import run_in_virtual_time, time_passes, until
from tests.turn.snapshots import begun, permit


def virtual() -> Snapshots:
    return Snapshots(asyncio.get_running_loop().time)


async def test_readers_are_known_while_they_read() -> None:
    """They are listed oldest first, with their age by the clock, and removed when they end."""
    now = 100.0
    snapshots = Snapshots(lambda: now)
    assert snapshots.oldest is None
    first = begun(snapshots)
    now = 101.5
    second = begun(snapshots, long=True)
    assert list(snapshots) == [first, second]
    assert snapshots.oldest is first
    assert (len(snapshots), first.since, second.since) == (2, 100.0, 101.5)
    assert first.describe(now).startswith("1.5 s by task '")
    snapshots.end(first)
    assert list(snapshots) == [second]
    snapshots.end(second)
    assert len(snapshots) == 0


async def test_statistics() -> None:
    """They contain the number of readers, the oldest of them, and the number of gaps."""
    now = 100.0
    snapshots = Snapshots(lambda: now)
    assert snapshots.statistics() == SnapshotsStatistics()
    begun(snapshots, long=True).permit.last_sql = "SELECT 1"
    begun(snapshots)
    now = 101.5
    with snapshots.gap(1.0):
        found = snapshots.statistics()
        assert (found.open, snapshots.in_gap) == (2, True)
    assert found.oldest is not None
    assert (found.oldest.seconds, found.oldest.long, found.oldest.outstayed) == (1.5, True, False)
    assert found.oldest.who.endswith("last SQL: SELECT 1)")
    assert not snapshots.in_gap
    assert snapshots.statistics().gaps.gaps == 1


async def test_who_is_not_worth_waiting_for() -> None:
    """Readers that were declared long, or have outstayed a gap, are not waited for."""
    snapshots = Snapshots()
    short, long = begun(snapshots), begun(snapshots, long=True)
    assert (short.stays, long.stays) == (False, True)
    short.outstayed = True
    assert short.stays


async def test_no_reader_begins_in_a_gap() -> None:
    """A refused reader leaves no trace, and begins once the gap is over."""
    snapshots = Snapshots()
    with snapshots.gap(10):
        assert snapshots.in_gap
        assert snapshots.begin(permit()) is None
        assert len(snapshots) == 0
    assert not snapshots.in_gap
    snapshots.end(begun(snapshots))


async def test_a_gap_ends_with_its_block_whatever_happens() -> None:
    """This includes an error."""
    snapshots = Snapshots()
    with pytest.raises(ZeroDivisionError), snapshots.gap(10):
        raise ZeroDivisionError
    assert not snapshots.in_gap
    assert snapshots._gap is None  # nor is it kept


async def test_one_gap_at_a_time() -> None:
    """A second gap would be ended by the first."""
    snapshots = Snapshots()
    with snapshots.gap(10), pytest.raises(AssertionError), snapshots.gap(10):
        pass


def test_a_gap_waits_for_the_last_reader_and_no_longer() -> None:
    """It wakes at the end of the last one, long before its time is over."""

    async def main() -> None:
        snapshots, loop = virtual(), asyncio.get_running_loop()
        for seconds in (1.0, 3.0, 2.0):
            loop.call_later(seconds, snapshots.end, begun(snapshots))
        with snapshots.gap(100) as gap:
            await gap.wait(50)
            assert loop.time() == 3.0
            assert gap.left == []

    run_in_virtual_time(main())


def test_a_gap_names_who_stays() -> None:
    """It does so after the time of its wait, not after the gap's."""

    async def main() -> None:
        snapshots, loop = virtual(), asyncio.get_running_loop()
        goes, stays, stays_too = (begun(snapshots) for _ in range(3))
        loop.call_later(1.0, snapshots.end, goes)
        with snapshots.gap(100) as gap:
            assert gap.left == [goes, stays, stays_too]
            await gap.wait(5.0)
            assert loop.time() == 5.0
            assert gap.left == [stays, stays_too]

    run_in_virtual_time(main())


async def test_who_comes_after_a_gap_is_over_is_not_waited_for() -> None:
    """Readers continue when the gap's time is over, even if its block is not."""
    now = 0.0
    snapshots = Snapshots(lambda: now)
    with snapshots.gap(2.0) as gap:
        now = 2.0 - 2**-20
        assert snapshots.begin(permit()) is None
        now = 2.0
        late = begun(snapshots)
        assert gap.left == []
        await gap.wait(0)
    assert list(snapshots) == [late]


async def test_waiting_for_nobody_takes_no_time() -> None:
    """There are no readers."""
    with Snapshots().gap(10) as gap:
        await gap.wait(0)
        assert gap.left == []


def test_readers_wake_when_the_gap_ends() -> None:
    """All of them wake at once."""

    async def main() -> None:
        snapshots, loop = virtual(), asyncio.get_running_loop()
        woken: list[float] = []

        async def read() -> None:
            await snapshots.until_no_gap()
            woken.append(loop.time())
            snapshots.end(begun(snapshots))

        with snapshots.gap(100):
            tasks = [asyncio.create_task(read()) for _ in range(3)]
            await time_passes(1.0)
            assert woken == []
        await asyncio.gather(*tasks)
        assert woken == [1.0, 1.0, 1.0]

    run_in_virtual_time(main())


def test_readers_wait_no_longer_than_the_gaps_time() -> None:
    """This applies even if the gap's maker does not end it."""

    async def main() -> None:
        snapshots, loop = virtual(), asyncio.get_running_loop()
        with snapshots.gap(2.0):
            await snapshots.until_no_gap()
            assert loop.time() == 2.0

    run_in_virtual_time(main())


def test_a_gap_that_follows_is_waited_for_too() -> None:
    """A reader that wakes in the next gap continues to wait."""

    async def main() -> None:
        snapshots, loop = virtual(), asyncio.get_running_loop()
        with snapshots.gap(10.0):
            reader = asyncio.create_task(snapshots.until_no_gap())
            await time_passes(1.0)
        with snapshots.gap(5.0):
            await reader
        assert loop.time() == 6.0

    run_in_virtual_time(main())


async def test_without_a_gap_nobody_waits() -> None:
    """A reader does not wait even for a lap of the loop."""
    waiting = Snapshots().until_no_gap()
    with pytest.raises(StopIteration):
        waiting.send(None)


def test_a_cancelled_reader_leaves_nothing() -> None:
    """Neither its entry among the waiters remains, nor its timer, nor the reader itself."""

    async def main() -> None:
        snapshots, loop = virtual(), asyncio.get_running_loop()
        with snapshots.gap(50.0) as gap:
            task = asyncio.create_task(snapshots.until_no_gap())
            await time_passes(1.0)
            assert len(gap._waiting) == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert gap._waiting == set()
            assert len(snapshots) == 0
            await time_passes(1.0)  # a loop discards cancelled timers in its next lap
            timers = [timer for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
            assert timers == []

    run_in_virtual_time(main())


async def test_a_reader_that_is_cancelled_while_it_is_woken() -> None:
    """If the gap ends and the task is cancelled in the same lap of the loop, there is no error."""
    snapshots, errors = Snapshots(), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    with snapshots.gap(50.0) as gap:
        task = asyncio.create_task(snapshots.until_no_gap())
        await until(lambda: gap._waiting)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert errors == []


def in_a_loop_that_is_closed(snapshots: Snapshots) -> Gap:
    """Return a gap that its maker never ended."""
    loop = asyncio.new_event_loop()

    async def make() -> Gap:
        manager = snapshots.gap(1000)
        unfinished.append(manager)
        return manager.__enter__()

    gap = loop.run_until_complete(make())
    loop.close()
    return gap


unfinished: list[object] = []


def test_a_gap_whose_loop_is_closed_is_not_respected() -> None:
    """It would never be ended."""
    snapshots = Snapshots()
    gap = in_a_loop_that_is_closed(snapshots)
    assert not snapshots.in_gap

    async def read() -> None:
        await asyncio.wait_for(snapshots.until_no_gap(), 10)
        snapshots.end(begun(snapshots))  # and no reader of that loop has to be woken

    asyncio.run(read())
    assert gap.left == []


def test_a_gap_whose_loop_is_closed_ends_no_other() -> None:
    """The garbage collector ends it at any time."""
    snapshots = Snapshots()
    in_a_loop_that_is_closed(snapshots)

    async def make_another() -> None:
        with snapshots.gap(1000):
            unfinished.clear()
            assert snapshots.in_gap

    asyncio.run(make_another())


def test_a_gap_ends_although_a_waiting_loop_is_closed() -> None:
    """The readers of other loops are woken nevertheless."""
    snapshots = Snapshots()

    async def main() -> None:
        with snapshots.gap(1000) as gap:
            closed = asyncio.new_event_loop()
            gap._waiting.add((closed, closed.create_future()))
            closed.close()
            other = asyncio.create_task(snapshots.until_no_gap())
            await until(lambda: len(gap._waiting) == 2)
        await asyncio.wait_for(other, 10)

    asyncio.run(main())


def in_thread(function: Callable[[], object]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


async def test_the_end_from_another_thread_and_twice() -> None:
    """The garbage collector may do both: the gap wakes, and the second end has no effect."""
    snapshots = Snapshots()
    reader = begun(snapshots)
    with snapshots.gap(100) as gap:
        waiting = asyncio.create_task(gap.wait(100))
        await until(lambda: gap._news.is_set() or not waiting.done())
        in_thread(lambda: snapshots.end(reader))
        await asyncio.wait_for(waiting, 10)
        snapshots.end(reader)
        in_thread(lambda: snapshots.end(reader))
        assert gap.left == []
    assert len(snapshots) == 0


async def test_readers_of_two_loops_in_two_threads() -> None:
    """One gap applies to all of them: it waits for both, and both wait for its end."""
    snapshots = Snapshots()
    reading, waiting = threading.Barrier(3), threading.Barrier(3)
    leave = threading.Event()
    order: list[str] = []

    async def read() -> None:
        reader = begun(snapshots)
        await asyncio.to_thread(reading.wait, 10)
        await asyncio.to_thread(leave.wait, 10)
        order.append("left")
        snapshots.end(reader)
        assert snapshots.begin(permit()) is None
        again = asyncio.ensure_future(snapshots.until_no_gap())
        await until(lambda: any(loop is again.get_loop() for loop, _ in gap._waiting))
        await asyncio.to_thread(waiting.wait, 10)
        await asyncio.wait_for(again, 10)
        order.append("again")
        snapshots.end(begun(snapshots))

    threads = [threading.Thread(target=asyncio.run, args=(read(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    await asyncio.to_thread(reading.wait, 10)
    with snapshots.gap(1000) as gap:
        assert len(gap.left) == 2
        leave.set()
        await gap.wait(10)
        assert gap.left == []
        await asyncio.to_thread(waiting.wait, 10)
        order.append("gap ends")
    for thread in threads:
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()
    assert order == ["left", "left", "gap ends", "again", "again"]


async def test_an_early_end_is_made_in_the_readers_own_loop() -> None:
    """This holds whichever thread requests it."""
    calls: list[tuple[Snapshot, str, int]] = []

    def end_early(snapshot: Snapshot, error: Callable[[], Exception]) -> None:
        calls.append((snapshot, str(error()), threading.get_ident()))

    snapshot = Snapshots().begin(permit(), end_early=end_early)
    assert snapshot is not None
    in_thread(lambda: snapshot.end_early(lambda: ValueError("too old")))
    assert calls == []
    await until(lambda: calls)
    assert calls == [(snapshot, "too old", threading.get_ident())]


async def test_an_early_end_that_nobody_knows_how_to_make() -> None:
    """Without a function or a task, nothing happens."""
    calls: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: calls.append(context))
    Snapshot(permit(), 0.0).end_early(ValueError)
    Snapshot(Permit(None, 0.0), 0.0, end_early=lambda s, _: calls.append(s)).end_early(ValueError)
    await asyncio.sleep(0)
    assert calls == []


def test_an_early_end_in_a_closed_loop() -> None:
    """Its task can never run again, so nothing is called and nothing raised."""
    calls: list[Snapshot] = []

    async def read() -> Snapshot:
        return Snapshot(permit(), 0.0, end_early=lambda s, _: calls.append(s))

    asyncio.run(read()).end_early(ValueError)
    assert calls == []
