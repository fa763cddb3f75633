"""The main greenlets of threads that run functions of the application, kept until these have ended.

Errors keep frames, and frames lead to greenlets: ``await_only()`` of SQLAlchemy has the running one
in a variable where it raises MissingGreenlet, say. A thread's main greenlet in garbage is freed
twice, and the process dies, if the thread ends while the garbage is collected: ``~ThreadState()``
in greenlet's TThreadState.hpp (3.5) takes a reference that it does not find for one that was
leaked, and objects that are just being collected are not found. It looks where there is one that is
not its own, through all objects of the process; so there are two here.
"""

from __future__ import annotations

import threading

from greenlet import getcurrent, greenlet

# Of threads that have ended. ``~ThreadState()`` runs a little later, in the main thread.
_MOST_ENDED = 64

# In order of their beginning. Each step here is one of the interpreter: threads begin and end at
# the same time.
_kept: dict[threading.Thread, tuple[greenlet, greenlet]] = {}


def keep_main_greenlet() -> None:
    """To be called in each such thread before the first function, outside of all greenlets."""
    # Not ``greenlet.dead``: it clears what is left of a thread that is just ending.
    ended = [thread for thread in list(_kept) if not thread.is_alive()]
    for thread in ended[:-_MOST_ENDED]:
        _kept.pop(thread, None)
    main = getcurrent()
    _kept[threading.current_thread()] = main, main
