"""``fork()``: what a child process must not inherit.

"Do not open an SQLite database connection, then fork(2), then try to use that database connection
in the child process. […] Do not even call sqlite3_close() on a database connection from a child
process": https://www.sqlite.org/howtocorrupt.html#_carrying_an_open_database_across_a_fork_

Nor may the child reopen a file to which it has inherited a connection: SQLite keeps one record of
locks for each file in a process (``unixInodeInfo`` in its os_unix.c). The child's copy says that
the file is already locked, so SQLite locks nothing, and a commit of the child is lost when the
parent closes.

Therefore, before a fork, the threads that work for this package come to rest, so that no mutex
inside SQLite is held by a thread that does not exist in the child, and idle connections are closed.
In the child, every registered object is renewed: connections are never touched again, turns and
pools are reset, and files to which a connection was in use are refused.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Protocol, final

from .clock import time
from .weak_objects import WeakObjects

# A fork does not wait for a statement that runs longer than this: it may take minutes, and SQLite
# holds its process-wide mutexes only for moments.
_REST_SECONDS = 1.0
_LOOK_SECONDS = 0.0005


class Renewable(Protocol):
    """An object that is reset in a child process."""

    def renew_in_child(self) -> None:
        """Discard what belongs to the parent. Runs right after the fork, in the only thread."""


class Preparing(Protocol):
    """An object that has something to do before a fork."""

    def prepare_for_fork(self) -> None:
        """Prepare, in the thread that forks, while the threads of this package are at rest."""


@final
class Rest:
    """A barrier: a fork waits until no thread uses SQLite, and threads wait until it is done.

    Each use is between :meth:`begin` and :meth:`end`, in any thread, with its own token.

        Thread                          | Fork
        begin(): token into working     |
        if forking: remove it, and wait | forking = True
        use SQLite                      | wait until working is empty, at most a second

    Whatever the order, one sees the other: the interpreter changes a set in one atomic step.
    """

    def __init__(self) -> None:
        self.renew_in_child()

    def renew_in_child(self) -> None:
        self.working: set[object] = set()
        self.forking = False
        self._longest: float | None = None  # seconds that a thread waits for the end of a pause
        self._forked = threading.Event()

    def begin(self, token: object) -> None:
        self.working.add(token)
        while self.forking:
            self.working.discard(token)
            if not self._forked.wait(self._longest):
                self.end_pause()
            self.working.add(token)

    def end(self, token: object) -> None:
        self.working.discard(token)

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Use SQLite within ``with rest():``, where a few microseconds do not matter."""
        token = object()
        self.begin(token)
        try:
            yield
        finally:
            self.end(token)

    def begin_pause(self, seconds: float = _REST_SECONDS, longest: float | None = None) -> None:
        """Keep threads from starting to use SQLite; wait at most ``seconds`` for those that use it.

        The pause lasts until :meth:`end_pause`, or until a thread has waited ``longest`` seconds.
        """
        self._longest = longest
        self._forked.clear()
        self.forking = True
        give_up = time.monotonic() + seconds
        while self.working and time.monotonic() < give_up:
            time.sleep(_LOOK_SECONDS)

    def end_pause(self) -> None:
        self.forking = False
        self._forked.set()


rest = Rest()
_renewables: WeakObjects[Renewable] = WeakObjects()
_preparing: WeakObjects[Preparing] = WeakObjects()


def renew_after_fork(thing: Renewable) -> None:
    """Register ``thing.renew_in_child()`` for every child. Keeps only a weak reference."""
    _renewables.add(thing)


def prepare_before_fork(thing: Preparing) -> None:
    """Register ``thing.prepare_for_fork()`` for every fork. Keeps only a weak reference."""
    _preparing.add(thing)


def _prepare_all() -> None:
    rest.begin_pause()
    with contextlib.ExitStack() as stack:  # calls each of them, even if another one raises
        for thing in _preparing:
            stack.callback(thing.prepare_for_fork)


def _renew_all() -> None:
    rest.renew_in_child()
    with contextlib.ExitStack() as stack:
        for thing in _renewables:
            stack.callback(thing.renew_in_child)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork()
    os.register_at_fork(
        before=_prepare_all, after_in_parent=rest.end_pause, after_in_child=_renew_all
    )
