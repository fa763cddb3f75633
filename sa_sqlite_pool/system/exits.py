"""The end of the interpreter: connections at rest are closed, so that the file holds everything.

In WAL mode the last commits are in the log, beside the database, until its last connection is
closed. On a stock engine, without a log, the file of a script that disposes of nothing can be
copied when the script has ended; so it can here. Connections that are in use at that time are left
open: the system closes their files, and SQLite recovers the log when the database is opened next.
"""

from __future__ import annotations

import atexit
import contextlib
import sys
from typing import Protocol, final

from .forks import renew_after_fork, rest
from .weak_objects import WeakObjects

# How long to wait for threads that are in SQLite. A statement of a daemon may run for minutes.
_REST_SECONDS = 0.1
# How long a thread waits that begins to use SQLite from now on. Daemon threads still wait when the
# interpreter ends, and that is the purpose: a thread that came back from SQLite then would be ended
# within a greenlet, whose memory would be freed without the interpreter lock. A handler that runs
# after this one, and uses a database, waits as well, but only once, and then goes on.
_LONGEST_SECONDS = 1.0


class EndsWithProcess(Protocol):
    """An object that has connections."""

    def close_at_exit(self) -> None:
        """Close those at rest, in the main thread. Other threads may still use the object."""


# A reader that is the last to close may not move the log, and leaves it there.
_readers: WeakObjects[EndsWithProcess] = WeakObjects()
_writers: WeakObjects[EndsWithProcess] = WeakObjects()


def close_at_exit(thing: EndsWithProcess, *, reads: bool) -> None:
    """Call ``thing.close_at_exit()`` at the end, readers first. This keeps a weak reference only.

    :param reads: its connections cannot write
    """
    (_readers if reads else _writers).add(thing)


def _close_all() -> None:
    rest.begin_pause(_REST_SECONDS, longest=_LONGEST_SECONDS)
    with contextlib.ExitStack() as stack:  # each of them, whatever becomes of the others
        for things in (_writers, _readers):
            for thing in things:
                stack.callback(thing.close_at_exit)


# Before the handlers that were registered earlier, after those of the application, which may use
# its database once more. Threads that are not daemons have ended by then.
atexit.register(_close_all)


@final
class _InProcesses:
    """A process that multiprocessing has forked ends without ``atexit``, by finalizers of its own.

    Its module forgets those of the parent in the child, and then calls what was registered by
    ``register_after_fork()``; see ``BaseProcess._bootstrap()``.
    """

    def renew_in_child(self) -> None:
        if (util := sys.modules.get("multiprocessing.util")) is not None:
            util.register_after_fork(self, _InProcesses.close_at_end)

    def close_at_end(self) -> None:
        sys.modules["multiprocessing.util"].Finalize(None, _close_all, exitpriority=_LAST)


_LAST = -1_000_000  # after the application's, of which those that are negative come last
_in_processes = _InProcesses()
renew_after_fork(_in_processes)
