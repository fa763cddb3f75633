"""Reports of finished jobs to an event loop.

Waking a loop from a thread costs a system call on each side, and both release the interpreter
lock. One wake-up serves all jobs that finish before the loop checks.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable
from typing import final

from ..compat.main_greenlets import keep_main_greenlet
from ..system.loop_state import call_unless_closed

Report = Callable[[], None]


@final
class Mailbox:
    """The reports of threads to one loop; a part of its state, to be created while it runs.

    It needs no mutex: each operation on the deque and on the flag is one step of the interpreter.

        Thread                     | Loop
        append the report          | announced = False
        announced? True: done      | count the reports, and take that many
        else: announce             |

    A thread that finds ``announced`` True has appended before the loop counts. A thread that finds
    it False announces, at worst once more than necessary.
    """

    def __init__(self) -> None:
        keep_main_greenlet()  # of the thread in which the loop runs
        self._loop = weakref.ref(asyncio.get_running_loop())
        # reports non-empty ⇒ announced, or about to be
        self._reports: deque[Report] = deque()
        self._announced = False

    def post(self, report: Report) -> None:
        """Call ``report`` in the loop, from any thread; drop it if the loop is closed.

        Raise MemoryError if memory is exhausted; trying again does no harm.
        """
        self._reports.append(report)
        if not self._announced:
            self._announce()

    def _announce(self) -> None:
        self._announced = True
        try:
            loop = self._loop()
            if loop is not None and not call_unless_closed(loop, self._deliver):
                self._reports.clear()
        except BaseException:  # MemoryError, for example: later reports must still wake the loop
            self._announced = False
            raise

    def _deliver(self) -> None:
        self._announced = False
        try:
            for _ in range(len(self._reports)):  # later reports are called in the next lap
                try:
                    report = self._reports.popleft()
                except IndexError:  # a report has run the loop inside itself (nest_asyncio)
                    return
                report()
        except BaseException:  # KeyboardInterrupt in a task: the other reports still follow
            self._announce()
            raise
