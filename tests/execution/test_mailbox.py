"""Reports from threads to a loop: one wake-up for many, and none lost."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from sa_sqlite_pool.execution.mailbox import mailbox


async def test_one_wake_up_serves_all_that_finish_before_the_loop_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hundred reports while the loop is busy, one system call."""
    loop = asyncio.get_running_loop()
    box, heard = mailbox(loop), list[int]()
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


async def test_each_loop_has_one() -> None:
    """And it goes with the loop."""
    loop = asyncio.get_running_loop()
    assert mailbox(loop) is mailbox(loop)
    other = asyncio.new_event_loop()
    box = mailbox(other)
    assert box is not mailbox(loop)
    assert box.belongs_to(other)
    other.close()
    del other
    gc.collect()
    assert box._loop() is None


def test_reports_to_a_closed_loop_are_dropped() -> None:
    """Nobody waits any more; the thread goes on."""
    loop = asyncio.new_event_loop()
    box = mailbox(loop)
    loop.close()
    box.post(lambda: None)
    assert not box._reports


def test_an_interrupt_in_one_report_keeps_the_others() -> None:
    """KeyboardInterrupt leaves the loop; when it runs again, the rest is delivered."""
    loop = asyncio.new_event_loop()
    box, heard = mailbox(loop), list[str]()

    def interrupt() -> None:
        raise KeyboardInterrupt

    for report in (interrupt, lambda: heard.append("second"), lambda: heard.append("third")):
        box.post(report)
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    assert heard == ["second", "third"]
    loop.close()
