"""Reports of finished jobs on their way to an event loop.

Waking a loop from a thread costs a system call on each side, and both release the interpreter
lock. One wake-up serves all that finish before the loop looks.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import final

from ..system.forks import renew_after_fork

Report = Callable[[], None]


@final
class Mailbox:
    """What threads have to tell one loop. Get it from :func:`mailbox`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self.renew_in_child()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        """No thread of the parent reports here."""
        self._mutex = threading.Lock()
        # reports non-empty ⇒ announced
        self._reports: deque[Report] = deque()
        self._announced = False

    def belongs_to(self, loop: asyncio.AbstractEventLoop) -> bool:
        return self._loop() is loop

    def post(self, report: Report) -> None:
        """Have ``report`` called in the loop. From any thread; dropped where the loop is closed."""
        with self._mutex:
            self._reports.append(report)
            if self._announced:
                return
            self._announced = True
        self._announce()

    def _announce(self) -> None:
        loop = self._loop()
        try:
            if loop is not None:
                loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:  # closed: nobody waits any more
            self._reports.clear()

    def _deliver(self) -> None:
        with self._mutex:
            reports, self._reports = self._reports, deque()
            self._announced = False
        while reports:
            report = reports.popleft()
            try:
                report()
            except BaseException:  # KeyboardInterrupt in a task: the others still get theirs
                for remaining in reports:
                    self.post(remaining)
                raise


@final
class _Registry:
    """The mailboxes of all loops."""

    def __init__(self) -> None:
        self._mailboxes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox] = (
            weakref.WeakKeyDictionary()
        )
        self.renew_in_child()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        # A thread that the child does not have may have held it.
        self._mutex = threading.Lock()

    def mailbox(self, loop: asyncio.AbstractEventLoop) -> Mailbox:
        with self._mutex:
            found = self._mailboxes.get(loop)
            if found is None:
                found = self._mailboxes[loop] = Mailbox(loop)
            return found


_registry = _Registry()


def mailbox(loop: asyncio.AbstractEventLoop) -> Mailbox:
    """The mailbox of ``loop``: the same object each time."""
    return _registry.mailbox(loop)
