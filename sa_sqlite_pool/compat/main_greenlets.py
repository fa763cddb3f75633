"""The main greenlets of the threads that this package starts, kept until those have ended.

Errors keep frames, and frames lead to greenlets: ``await_only()`` of SQLAlchemy has the running one
in a variable where it raises MissingGreenlet, say. A thread's main greenlet in garbage is freed
twice, and the process dies, if the thread ends while the garbage is collected: ``~ThreadState()``
in greenlet's TThreadState.hpp (3.5) takes a reference that it does not find for one that was
leaked, and objects that are just being collected are not found. It looks where there is one that is
not its own, through all objects of the process; so there are two here.
"""

from __future__ import annotations

import contextlib
import threading

from greenlet import getcurrent, greenlet

# Of threads that have ended. ``~ThreadState()`` runs a little later, in the main thread.
_MOST_ENDED = 64

# Each step on it is one of the interpreter: threads begin and end at the same time.
_kept: list[tuple[threading.Thread, greenlet, greenlet]] = []


def keep_main_greenlet() -> None:
    """To be called once in each thread that runs functions of the application, at its beginning."""
    # Not ``greenlet.dead``: it clears what is left of a thread that is just ending.
    ended = [one for one in list(_kept) if not one[0].is_alive()]
    for one in ended[:-_MOST_ENDED]:
        with contextlib.suppress(ValueError):  # another thread was sooner
            _kept.remove(one)
    main = getcurrent()
    _kept.append((threading.current_thread(), main, main))
