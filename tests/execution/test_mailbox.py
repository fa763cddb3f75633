"""Reports from threads to a loop: one wake-up for many, and none lost."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from sa_sqlite_pool.execution.mailbox import Mailbox


async def test_one_wake_up_serves_all_that_finish_before_the_loop_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hundred reports while the loop is busy need a single system call."""
    loop = asyncio.get_running_loop()
    box, heard = Mailbox(), list[int]()
    wake_ups = 0
    wake = loop.call_soon_threadsafe

    def counted(callback: Callable[..., Any], *args: Any, **kw: Any) -> asyncio.Handle:
        nonlocal wake_ups
        wake_ups += 1
        return wake(callback, *args, **kw)

    def finish() -> None:
        for number in range(100):
            box.post(lambda number=number: heard.append(number))  # type: ignore[misc]

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    thread = threading.Thread(target=finish)
    thread.start()
    thread.join()
    await asyncio.sleep(0)
    assert heard == list(range(100))
    assert wake_ups == 1
    box.post(lambda: heard.append(100))
    await asyncio.sleep(0)
    assert (heard[-1], wake_ups) == (100, 2)


def box_of(loop: asyncio.AbstractEventLoop) -> Mailbox:
    async def made() -> Mailbox:
        return Mailbox()

    return loop.run_until_complete(made())


class Counted(deque[Callable[[], None]]):
    """Makes a thread act just after the loop has counted the reports."""

    then: Callable[[], None] | None = None

    def __len__(self) -> int:
        length = super().__len__()
        if self.then is not None:
            thread, self.then = threading.Thread(target=self.then), None
            thread.start()
            thread.join()
        return length


async def test_a_report_on_the_way_is_not_lost() -> None:
    """A report that arrives after the loop has counted wakes it once more.

    Thread             | Loop
                       | announced = False
                       | counts one
    append             |
    announced? False   |
    announce           | takes one
                       | takes the other, in the next lap
    """
    box, heard = Mailbox(), list[str]()
    box._reports = reports = Counted()
    reports.then = lambda: box.post(lambda: heard.append("second"))
    box.post(lambda: heard.append("first"))
    await asyncio.sleep(0)
    assert heard == ["first"]
    await asyncio.sleep(0)
    assert heard == ["first", "second"]


async def test_what_a_report_leads_to_comes_in_the_next_lap() -> None:
    """Reports that result from reports do not keep the rest of the loop waiting."""
    box, order = Mailbox(), list[str]()
    box.post(lambda: box.post(lambda: order.append("next")))
    asyncio.get_running_loop().call_soon(order.append, "others")
    await asyncio.sleep(0)
    assert order == ["others"]
    await asyncio.sleep(0)
    assert order == ["others", "next"]


def test_a_loop_goes_before_its_mailbox() -> None:
    """A thread may still have the mailbox."""
    loop = asyncio.new_event_loop()
    box = box_of(loop)
    loop.close()
    del loop
    gc.collect()
    assert box._loop() is None
    box.post(lambda: None)


def test_reports_to_a_closed_loop_are_dropped() -> None:
    """No task waits any more, and the thread continues."""
    loop = asyncio.new_event_loop()
    box = box_of(loop)
    loop.close()
    box.post(lambda: None)
    assert not box._reports


def test_an_interrupt_in_one_report_keeps_the_others() -> None:
    """KeyboardInterrupt leaves the loop; when it runs again, the rest is delivered."""
    loop = asyncio.new_event_loop()
    box, heard = box_of(loop), list[str]()

    def interrupt() -> None:
        raise KeyboardInterrupt

    for report in (interrupt, lambda: heard.append("second"), lambda: heard.append("third")):
        box.post(report)
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    assert heard == ["second", "third"]
    loop.close()
