"""The main greenlets of the threads that this package starts, kept until those have ended.

Errors keep frames, and frames lead to greenlets: ``await_only()`` of SQLAlchemy has the running one
in a variable where it raises MissingGreenlet, say. A thread's main greenlet in garbage is freed
twice, and the process dies, if the thread ends while the garbage is collected: ``~ThreadState()``
in greenlet's TThreadState.hpp (3.5) takes a reference that it does not find for one that was
leaked, and objects that are just being collected are not found. One more reference, which is found,
and it looks for none.
"""

from __future__ import annotations

from greenlet import getcurrent, greenlet

# Of threads that have ended. ``~ThreadState()`` runs a little later, in the main thread.
_MOST_DEAD = 64

# In order. Each step here is one of the interpreter: threads begin and end at the same time.
_kept: dict[greenlet, None] = {}


def keep_main_greenlet() -> None:
    """To be called once in each thread that runs functions of the application, at its beginning."""
    dead = [one for one in list(_kept) if one.dead]
    for one in dead[:-_MOST_DEAD]:
        _kept.pop(one, None)
    _kept[getcurrent()] = None
