"""The main greenlets of threads that run the application's code, kept until the threads have ended.

Connection threads run the application's functions, and any thread may run an event loop.

Errors keep frames alive, and frames refer to greenlets: for example, a local variable of
SQLAlchemy's ``await_only()`` refers to the running one where it raises MissingGreenlet. If a thread
ends while its main greenlet is being garbage collected, the greenlet is freed twice, and the
process crashes: ``~ThreadState()`` in greenlet's TThreadState.hpp (3.5) searches all objects for
the one reference that is not its own, misses objects being collected, and assumes a leak. It
searches only if there is exactly one such reference, so this module keeps two.
"""

from __future__ import annotations

import threading

from greenlet import getcurrent, greenlet

# The most ended threads to keep. ``~ThreadState()`` runs slightly later, in the main thread.
_MOST_ENDED = 64

# In order of their start. Each access is atomic in the interpreter, since other threads start and
# end at the same time.
_kept: dict[threading.Thread, tuple[greenlet, greenlet]] = {}


def keep_main_greenlet() -> None:
    """Keep this thread's main greenlet. Call it before the first function, in any greenlet."""
    # Not ``greenlet.dead``, which clears the state of a thread that is just ending.
    ended = [thread for thread in list(_kept) if not thread.is_alive()]
    for thread in ended[:-_MOST_ENDED]:
        _kept.pop(thread, None)
    main = getcurrent()
    while main.parent is not None:
        main = main.parent
    _kept[threading.current_thread()] = main, main
