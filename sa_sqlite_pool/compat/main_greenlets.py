"""The main greenlets of threads that run the application's code, kept until these have ended.

Threads of connections run its functions, and any thread may run an event loop.

Errors keep frames, and frames refer to greenlets: SQLAlchemy's ``await_only()`` has the running one
in a variable where it raises MissingGreenlet, for example. If a thread ends while its main greenlet
is being collected as garbage, the greenlet is freed twice, and the process dies: ``~ThreadState()``
in greenlet's TThreadState.hpp (3.5) searches all objects of the process for the one reference that
is not its own, does not find objects that are being collected, and takes the reference for a leak.
It searches only if there is one such reference, so this module keeps two.
"""

from __future__ import annotations

import threading

from greenlet import getcurrent, greenlet

# The most ended threads that are kept. ``~ThreadState()`` runs a little later, in the main thread.
_MOST_ENDED = 64

# In order of their start. Each access is one step of the interpreter, since other threads start and
# end at the same time.
_kept: dict[threading.Thread, tuple[greenlet, greenlet]] = {}


def keep_main_greenlet() -> None:
    """Keep this thread's main greenlet; call it before the first function, in any greenlet."""
    # Not ``greenlet.dead``: it clears what is left of a thread that is just ending.
    ended = [thread for thread in list(_kept) if not thread.is_alive()]
    for thread in ended[:-_MOST_ENDED]:
        _kept.pop(thread, None)
    main = getcurrent()
    while main.parent is not None:
        main = main.parent
    _kept[threading.current_thread()] = main, main
