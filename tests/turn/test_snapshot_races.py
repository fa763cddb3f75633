"""Register, then check: whatever happens between two steps, no reader and gap miss each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager

from sa_sqlite_pool.turn import snapshots as module
from sa_sqlite_pool.turn.permit import Permit
from sa_sqlite_pool.turn.snapshots import Gap, Snapshot, Snapshots
from tests.helpers import run_in_virtual_time
from tests.turn.steps import Meanwhile, every_step

FILE = module.__file__


def permit() -> Permit:
    return Permit(asyncio.current_task(), 0.0)


class OpenGap:
    """A gap that is ended by a call."""

    def __init__(self, snapshots: Snapshots, seconds: float = 100.0) -> None:
        self._manager: AbstractContextManager[Gap] = snapshots.gap(seconds)
        self._ended = False
        self.gap = self._manager.__enter__()

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            self._manager.__exit__(None, None, None)


async def test_a_reader_begins_while_a_gap_is_made() -> None:
    """The reader waits, or the gap waits for it."""
    for step, note in every_step():
        snapshots, begun = Snapshots(), list[Snapshot | None]()
        with Meanwhile(FILE, step, lambda: begun.append(snapshots.begin(permit()))) as meanwhile:  # noqa: B023
            made = OpenGap(snapshots)
        note(meanwhile)
        assert all(one is None or one in made.gap.left for one in begun), step
        assert len(made.gap.left) == sum(one is not None for one in begun)
        made.end()


async def test_a_gap_is_made_while_a_reader_begins() -> None:
    """The same applies from the other side."""
    for step, note in every_step():
        snapshots, made = Snapshots(), list[OpenGap]()
        with Meanwhile(FILE, step, lambda: made.append(OpenGap(snapshots))) as meanwhile:  # noqa: B023
            begun = snapshots.begin(permit())
        note(meanwhile)
        for gap in made:
            assert gap.gap.left == ([] if begun is None else [begun]), step
            gap.end()


async def test_a_gap_ends_while_a_reader_begins() -> None:
    """The reader has begun, or retries; it never fails."""
    for step, note in every_step():
        snapshots = Snapshots()
        made = OpenGap(snapshots)
        with Meanwhile(FILE, step, made.end) as meanwhile:
            begun = snapshots.begin(permit())
        note(meanwhile)
        assert list(snapshots) == ([] if begun is None else [begun]), step
        made.end()


async def test_another_reader_ends_while_one_begins_or_a_gap_is_made() -> None:
    """The garbage collector may do so between any two steps."""
    acts: list[Callable[[Snapshots], object]] = [
        lambda snapshots: snapshots.begin(permit()),
        lambda snapshots: OpenGap(snapshots).end(),
        lambda snapshots: snapshots.oldest,
        list,
    ]
    for act in acts:
        for step, note in every_step():
            snapshots = Snapshots()
            other = snapshots.begin(permit())
            assert other is not None
            with Meanwhile(FILE, step, lambda: snapshots.end(other)) as meanwhile:  # noqa: B023
                act(snapshots)
            note(meanwhile)


def test_a_gap_ends_while_a_reader_begins_to_wait() -> None:
    """The reader is woken or does not wait, and never until the gap's time is over."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for step, note in every_step():
            snapshots, before = Snapshots(loop.time), loop.time()
            made = OpenGap(snapshots)
            with Meanwhile(FILE, step, made.end) as meanwhile:
                reader = asyncio.create_task(snapshots.until_no_gap())
                loop.call_soon(lambda: loop.call_soon(made.end))  # noqa: B023 - after it waits
                await reader
            note(meanwhile)
            assert loop.time() == before, step

    run_in_virtual_time(main())


def test_the_last_reader_ends_while_the_gap_begins_to_wait() -> None:
    """The gap is woken, or does not wait."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for step, note in every_step():
            snapshots, before = Snapshots(loop.time), loop.time()
            last = snapshots.begin(permit())
            assert last is not None
            made = OpenGap(snapshots)
            loop.call_later(0, lambda: None)
            with Meanwhile(FILE, step, lambda: snapshots.end(last)) as meanwhile:  # noqa: B023
                waiting = asyncio.create_task(made.gap.wait(50))
                for _ in range(5):
                    await asyncio.sleep(0)
                snapshots.end(last)  # at the latest
                await waiting
            note(meanwhile)
            assert loop.time() == before, step
            made.end()

    run_in_virtual_time(main())
