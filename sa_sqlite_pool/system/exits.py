"""Interpreter exit: connections at rest are closed, so that the database file is complete.

In WAL mode the last commits are in the log, beside the database, until its last connection is
closed. On a stock engine, which has no log, the database of a script that never calls dispose() can
be copied after the script has ended; so it can here. Connections in use at that time are left
open: the system closes their files, and SQLite recovers the log at the next opening.
"""

from __future__ import annotations

import atexit
import contextlib
import sys
from typing import Protocol, final

from .forks import renew_after_fork, rest
from .weak_objects import WeakObjects

# How long to wait for threads that are in SQLite. A daemon thread's statement may run for minutes.
_REST_SECONDS = 0.1
# How long a thread that starts to use SQLite from now on waits. Daemon threads are meant to be
# still waiting when the interpreter ends: a thread returning from SQLite then would be terminated
# within a greenlet, whose memory would be freed without the interpreter lock. A handler that runs
# after this one and uses a database waits as well, but only once, and then continues.
_LONGEST_SECONDS = 1.0


class EndsWithProcess(Protocol):
    """An object that owns connections."""

    def close_at_exit(self) -> None:
        """Close connections at rest, in the main thread. Other threads may still use the object."""


# If the last connection to close is a reader, it may not checkpoint the log, which then remains.
_readers: WeakObjects[EndsWithProcess] = WeakObjects()
_writers: WeakObjects[EndsWithProcess] = WeakObjects()


def close_at_exit(thing: EndsWithProcess, *, reads: bool) -> None:
    """Register ``thing.close_at_exit()`` for exit, readers first. Keeps only a weak reference.

    :param reads: its connections cannot write
    """
    (_readers if reads else _writers).add(thing)


def _close_all() -> None:
    rest.begin_pause(_REST_SECONDS, longest=_LONGEST_SECONDS)
    with contextlib.ExitStack() as stack:  # calls each of them, even if another one raises
        for things in (_writers, _readers):
            for thing in things:
                stack.callback(thing.close_at_exit)


# Runs before handlers that were registered earlier and after the application's, which may use its
# database once more. Threads that are not daemons have ended by then.
atexit.register(_close_all)


@final
class _InProcesses:
    """The hook for processes forked by multiprocessing, which run its finalizers, not ``atexit``.

    In the child, multiprocessing clears the parent's finalizers, and then calls what was
    registered with ``register_after_fork()``; see ``BaseProcess._bootstrap()``.
    """

    def renew_in_child(self) -> None:
        if (util := sys.modules.get("multiprocessing.util")) is not None:
            util.register_after_fork(self, _InProcesses.close_at_end)

    def close_at_end(self) -> None:
        sys.modules["multiprocessing.util"].Finalize(None, _close_all, exitpriority=_LAST)


_LAST = -1_000_000  # after the application's finalizers; those with negative priority run last
_in_processes = _InProcesses()
renew_after_fork(_in_processes)
