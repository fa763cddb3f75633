"""``fork()``: what a child process must not inherit.

"Do not open an SQLite database connection, then fork(2), then try to use that database connection
in the child process. […] Do not even call sqlite3_close() on a database connection from a child
process": https://www.sqlite.org/howtocorrupt.html#_carrying_an_open_database_across_a_fork_

Nor may the child open the same file again while it has inherited a connection to it: SQLite keeps
one record of locks for each file in a process (``unixInodeInfo`` in its os_unix.c). The child's
copy says that the file is locked already, so SQLite locks nothing, and a commit of the child is
lost when the parent closes.

So, before a fork, the threads that work for this package come to rest, so that no mutex inside
SQLite is held by a thread that the child does not have, and idle connections are closed. In the
child, every registered object is renewed: connections are never touched again, turns and pools
begin anew, and files to which a connection was in use are refused.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Protocol, final

from .clock import time
from .weak_objects import WeakObjects

# A fork does not wait for a statement that runs longer: it may take minutes, and SQLite holds its
# process-wide mutexes for moments only.
_REST_SECONDS = 1.0
_LOOK_SECONDS = 0.0005


class Renewable(Protocol):
    """An object that begins anew in a child process."""

    def renew_in_child(self) -> None:
        """Forget what belongs to the parent. Runs right after the fork, in its only thread."""


class Preparing(Protocol):
    """An object that does something before a fork."""

    def prepare_for_fork(self) -> None:
        """Prepare, in the thread that forks, while the threads of this package rest."""


@final
class Rest:
    """A barrier: a fork waits until no thread uses SQLite, and threads wait until it is done.

    Each use is between :meth:`begin` and :meth:`end`, in any thread, with a token of its own.

        Thread                          | Fork
        begin(): token into working     |
        if forking: out again, and wait | forking = True
        use SQLite                      | wait until working is empty, at most a second

    Whatever the order, one sees the other: a set changes in one step of the interpreter.
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
        """Use SQLite within ``with rest():``, where a few microseconds do not count."""
        token = object()
        self.begin(token)
        try:
            yield
        finally:
            self.end(token)

    def begin_pause(self, seconds: float = _REST_SECONDS, longest: float | None = None) -> None:
        """Let no thread begin to use SQLite; wait at most ``seconds`` for those that use it.

        It lasts until :meth:`end_pause`, or until a thread has waited for ``longest`` seconds.
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
    """Call ``thing.renew_in_child()`` in every child. This keeps a weak reference only."""
    _renewables.add(thing)


def prepare_before_fork(thing: Preparing) -> None:
    """Call ``thing.prepare_for_fork()`` before every fork. This keeps a weak reference only."""
    _preparing.add(thing)


def _prepare_all() -> None:
    rest.begin_pause()
    with contextlib.ExitStack() as stack:  # each of them, whatever becomes of the others
        for thing in _preparing:
            stack.callback(thing.prepare_for_fork)


def _renew_all() -> None:
    rest.renew_in_child()
    with contextlib.ExitStack() as stack:
        for thing in _renewables:
            stack.callback(thing.renew_in_child)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(
        before=_prepare_all, after_in_parent=rest.end_pause, after_in_child=_renew_all
    )
