"""One thread for the short statements of all connections of an engine, one after the other.

``sqlite3`` releases the interpreter lock at every step of every statement, and reacquires it.
With a thread for each connection, all busy threads compete for it with one another and with the
event loop: on two cores, four readers in four threads do fewer point reads than two, and a writer
waits milliseconds for a statement of fifty microseconds. So statements queue for one thread, which
under load runs one after another without ever sleeping.

A long statement would delay the others. When one has run for ``patience`` seconds while others
wait, another thread replaces the shared one, and the statement's text is remembered: from then on,
it runs in its connection's own thread, as does everything that is not a statement. The same applies
to COMMIT on a disk that is slow to sync, and to the statements of an engine that has opened only
one connection so far, since its thread has no other to compete with.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, final

from ..compat.main_greenlets import keep_main_greenlet
from ..mutex import new_lock
from ..system.clock import call_later, time
from ..system.forks import renew_after_fork
from .jobs import Job

PATIENCE_SECONDS = 0.010

_MOST_TEXTS = 512

# The time between two attempts of a thread to continue while memory is exhausted.
_NO_MEMORY_SECONDS = 0.01


@final
class _Runner:
    """An operating system thread. ``text`` has run in it since ``since`` (monotonic seconds).

    ``text`` is None until the thread has begun, which may take a while on a busy machine.
    """

    __slots__ = ("calls", "generation", "since", "text")

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.text: str | None = None
        self.since = 0.0
        threading.Thread(
            target=_work, args=(self.calls,), name="sa_sqlite_pool-shared", daemon=True
        ).start()

    def stop(self) -> None:
        self.calls.put(None)


def _work(calls: SimpleQueue[Callable[[], None] | None]) -> None:
    keep_main_greenlet()
    while (call := calls.get()) is not None:
        call()
        del call  # it refers to the SharedThread, which may become garbage while this waits


@dataclass(frozen=True, slots=True)
class SharedThreadStatistics:
    """``busy`` is True while a statement runs, ``jobs_waiting`` is how many are queued after it.

    ``threads_idle`` counts the idle threads, and ``texts_excluded`` the texts known to be slow.
    """

    busy: bool
    jobs_waiting: int
    threads_idle: int
    texts_excluded: int


@final
class SharedThread:
    """The thread for the statements of one engine's connections, in order of arrival.

    Any loop and thread may submit. The threads end with :meth:`stop`, or with this object.
    """

    def __init__(
        self,
        patience: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience = patience
        self._clock = clock
        self._idle: list[_Runner] = []
        self._generation = 0  # counts the calls of stop()
        self._connections = 0
        self._slow: OrderedDict[str, None] = OrderedDict()
        self.renew_in_child()
        renew_after_fork(self)
        # Not at exit: the threads are daemons.
        weakref.finalize(self, _stop_all, self._idle).atexit = False

    def renew_in_child(self) -> None:
        """Forget the threads and their jobs, which belong to the parent."""
        self._mutex = new_lock()
        self._queue: deque[tuple[Job[Any], str]] = deque()
        # queue non-empty ⇒ runner is not None
        self._runner: _Runner | None = None
        self._idle.clear()
        self._watching: asyncio.AbstractEventLoop | None = None  # the loop that has a timer

    def statistics(self) -> SharedThreadStatistics:
        """Return the state of the queue and the threads; from any thread."""
        with self._mutex:
            return SharedThreadStatistics(
                self._runner is not None, len(self._queue), len(self._idle), len(self._slow)
            )

    def note_connection(self) -> None:
        """Note that the engine has opened a connection."""
        self._connections += 1

    def takes(self, text: str) -> bool:
        """Return whether statements with this text run here: they are short, as far as is known.

        Return False as long as the engine has opened only one connection.
        """
        return self._connections != 1 and text not in self._slow

    def submit(self, job: Job[Any], text: str) -> bool:
        """Run ``job`` after the jobs that were submitted before it.

        Return False, without any effect, if that requires a thread and the system starts none.
        """
        with self._mutex:
            starts = self._runner is None
            if starts and not self._start():
                return False
            self._queue.append((job, text))  # the thread checks the queue under the mutex
        if not starts:
            self._keep_watch()
        return True

    def stop(self) -> None:
        """End the threads: the idle ones now, a busy one when it becomes idle.

        A job that is submitted later starts a new one.
        """
        with self._mutex:
            self._generation += 1
            self._connections = 0
            idle, self._idle[:] = self._idle[:], []
        _stop_all(idle)

    def _start(self) -> bool:
        """Make a thread run the queue, under the mutex; return False if the system starts none."""
        try:
            runner = self._idle.pop() if self._idle else _Runner(self._generation)
        except RuntimeError:  # the thread limit is reached, or the interpreter is shutting down
            return False
        self._runner = runner
        runner.text = None
        runner.calls.put(lambda: self._drain(runner))
        return True

    def _drain(self, runner: _Runner) -> None:
        """Run the queued jobs until there are none, or until another runner has taken over."""
        while True:
            try:
                with self._mutex:
                    if self._runner is not runner or not self._queue:
                        if self._runner is runner:
                            self._runner = None
                        self._rest(runner)
                        return
                    runner.since = self._clock()
                    job, runner.text = self._queue.popleft()
            except MemoryError:  # without a runner, nothing in the queue would ever run
                time.sleep(_NO_MEMORY_SECONDS)
                continue
            job()

    def _rest(self, runner: _Runner) -> None:
        if runner.generation == self._generation:
            self._idle.append(runner)
        else:
            runner.stop()

    # -- long statements -------------------------------------------------------------------------

    def _keep_watch(self) -> None:
        # One timer at a time, in the loop that waits; it is lost if that loop is closed.
        if self._watching is None or self._watching.is_closed():
            loop = asyncio.get_running_loop()
            call_later(loop, self._patience, self._look, context=Context())
            self._watching = loop  # only now: the call may fail if the stack is nearly exhausted

    def _look(self) -> None:
        self._watching = None
        with self._mutex:
            if not self._queue:
                return
            text = self._long_text()
            if text is not None:
                self._remember(text)
                self._start()  # otherwise, the queue would wait for the long statement
        self._keep_watch()

    def _long_text(self) -> str | None:
        """Return the text that delays the others; None if none does, or if it has yet to begin."""
        runner = self._runner
        if runner is None or self._clock() - runner.since < self._patience:
            return None
        return runner.text

    def _remember(self, text: str) -> None:
        self._slow[text] = None
        if len(self._slow) > _MOST_TEXTS:
            self._slow.popitem(last=False)


def _stop_all(runners: list[_Runner]) -> None:
    for runner in runners:
        runner.stop()
