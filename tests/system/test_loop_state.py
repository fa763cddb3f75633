"""One object for each event loop."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import warnings
import weakref

import pytest

from sa_sqlite_pool.system.loop_state import call_unless_closed, of_running_loop


class Part:
    """Keeps the object that it is given."""

    def __init__(self) -> None:
        self.kept: object = None


class Other:
    pass


async def part() -> Part:
    return of_running_loop(Part)


async def test_a_loop_has_one_object_of_a_class() -> None:
    """It is the same object each time, and a different one for another class."""
    assert of_running_loop(Part) is of_running_loop(Part)
    assert isinstance(of_running_loop(Other), Other)


def test_each_loop_has_its_own() -> None:
    """This holds for loops that alternate in one thread, and for a loop that changes threads."""
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    one, two = first.run_until_complete(part()), second.run_until_complete(part())
    assert one is not two
    assert first.run_until_complete(part()) is one
    found: list[Part] = []
    thread = threading.Thread(target=lambda: found.append(second.run_until_complete(part())))
    thread.start()
    thread.join()
    assert found == [two]
    first.close()
    second.close()


def test_no_loop_runs_here() -> None:
    """Only a running loop has a state; asyncio raises the error."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        of_running_loop(Part)


def test_a_state_goes_with_its_loop() -> None:
    """The state is freed, whatever else this thread does."""

    async def mine() -> weakref.ref[asyncio.AbstractEventLoop]:
        of_running_loop(Part)
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(mine())
    gc.collect()
    assert loop() is None


def test_what_a_closed_loop_leaves_behind_goes_when_the_next_begins() -> None:
    """A task that waits in a part refers to the loop, which would keep itself alive for ever."""

    async def leave_behind() -> weakref.ref[Part]:
        own = of_running_loop(Part)
        own.kept = asyncio.get_running_loop()
        return weakref.ref(own)

    loop = asyncio.new_event_loop()
    left = loop.run_until_complete(leave_behind())
    gc.collect()
    asyncio.run(asyncio.sleep(0))
    assert left() is not None
    loop.close()
    del loop
    asyncio.run(part())
    gc.collect()
    assert left() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork here")
def test_a_child_process_begins_anew() -> None:
    """Threads of the parent may have been in the middle of changing a part."""
    loop = asyncio.new_event_loop()
    parents = loop.run_until_complete(part())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        childs = loop.run_until_complete(part())
        os._exit(0 if childs is not parents else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert loop.run_until_complete(part()) is parents
    loop.close()


def test_a_closed_loop_is_told_nothing() -> None:
    """The caller is informed that there is nothing to wait for."""
    loop, heard = asyncio.new_event_loop(), list[str]()
    assert call_unless_closed(loop, heard.append, "open")
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert not call_unless_closed(loop, heard.append, "closed")
    assert heard == ["open"]
