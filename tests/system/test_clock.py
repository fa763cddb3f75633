"""Timers that use the machine's clock while the application's is stopped."""

from __future__ import annotations

import asyncio
import contextvars
import re
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import AsyncMock, patch

import pytest

import sa_sqlite_pool
from sa_sqlite_pool.system import clock
from sa_sqlite_pool.system.clock import call_at, call_later, loop_time, sleep
from tests.helpers import run_in_virtual_time
from tests.stopped_clock import THEN, stop_clock


def loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


# The command has its process to itself; the others need the clock that the application sees.
APPLICATIONS = {
    "cli/contenders.py",
    "cli/copies.py",
    "cli/status.py",
    "compat/without_loop.py",
    "integrations/opentelemetry/events.py",
    "system/clock.py",
    "turn/waits.py",
}


def test_all_modules_go_by_it() -> None:
    """No module uses a loop's timers, which would depend on the application's clock."""
    package = Path(sa_sqlite_pool.__file__).parent
    other = re.compile(r"^(?:import time|from time)\b|\basyncio\.sleep\(|\.call_(at|later)\(", re.M)
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if other.search(path.read_text() + " ")
    }
    assert found <= APPLICATIONS


def test_it_goes_on() -> None:
    with stop_clock():
        assert time.monotonic() == THEN
        assert clock.time.monotonic() < THEN
        assert clock.time.sleep is not time.sleep


def test_it_is_there_when_imported_under_a_stopped_clock() -> None:
    program = (
        "import time; time.monotonic = lambda: -1.0\n"
        "from sa_sqlite_pool.system.clock import time as real, is_replaced\n"
        "assert real.monotonic() > 0 and is_replaced()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("frozen", [False, True])
async def test_a_timer_comes(frozen: bool) -> None:
    context, variable = contextvars.copy_context(), contextvars.ContextVar("variable", default=0)
    context.run(variable.set, 1)
    came: asyncio.Queue[tuple[str, int, int]] = asyncio.Queue()

    def come(name: str) -> None:
        came.put_nowait((name, variable.get(), threading.get_ident()))

    def begin() -> None:
        call_later(loop(), 0.001, come, "later")
        call_at(loop(), loop_time(loop()) + 0.002, come, "at", context=context)

    if frozen:
        with stop_clock():
            begin()
            found = [await came.get(), await came.get()]
    else:
        begin()
        found = [await came.get(), await came.get()]
    here = threading.get_ident()
    assert sorted(found) == [("at", 1, here), ("later", 0, here)]


async def test_a_timer_that_was_set_before_does_not_come_at_once() -> None:
    """The loop considers all its timers overdue when its clock has jumped."""
    came: list[int] = []
    early = call_later(loop(), 60.0, came.append, 1)
    with stop_clock():
        others = loop().create_future()
        loop().call_at(THEN - 1, others.set_result, None)
        await others
        await asyncio.sleep(0)
        assert not came
    early.cancel()


async def test_nor_if_the_clock_is_right_again() -> None:
    """It was found overdue in a lap of the loop that had begun before."""
    came: list[int] = []
    frozen = ExitStack()
    early = call_later(loop(), 60.0, came.append, 1)
    loop().call_soon(frozen.close)
    frozen.enter_context(stop_clock())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not clock.is_replaced()
    assert not came
    early.cancel()


@pytest.mark.parametrize("frozen", [False, True])
async def test_a_timer_that_was_cancelled_does_not_come(frozen: bool) -> None:
    came: list[int] = []
    timer = call_later(loop(), 0.0, came.append, 1)
    timer.cancel()
    timer.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not came
    with stop_clock():
        threads = threading.active_count()
        timer = call_later(loop(), 60.0, came.append, 1)
        timer.cancel()
        while threading.active_count() > threads:
            await asyncio.sleep(0)


def test_a_loop_with_a_clock_of_its_own_goes_by_that() -> None:
    async def main() -> None:
        before = loop_time(loop())
        await sleep(3600.0)
        assert loop_time(loop()) == before + 3600.0

    run_in_virtual_time(main())


def test_the_loop_may_be_closed_when_the_time_comes() -> None:
    with stop_clock():
        ended = threading.Event()

        async def main() -> clock.Timer:
            return call_later(loop(), 0.01, ended.set)

        timer = asyncio.run(main())
        thread = timer._handle
        assert isinstance(thread, threading.Timer)
        thread.join(30)
    assert not ended.is_set()


async def test_sleep_is_its_own() -> None:
    with patch("asyncio.sleep", new=AsyncMock()) as theirs, patch("time.sleep") as blocking:
        await sleep(0.0)
        clock.time.sleep(0.0)
        others = asyncio.ensure_future(sleep(0.0))
        await clock.let_others_run()
        await others
    theirs.assert_not_called()
    blocking.assert_not_called()
