"""The line in which calls of ``run_read()`` wait, and the readers that serve them.

One reader at a time serves a line, and runs one call after another in its thread without a hop;
several readers in several threads would compete for the interpreter lock. A call that runs for long
would delay the others, so another reader takes over then:

    First reader          | Second reader         | Line
    runs a, b             |                       | a, b, c, d
    runs c, which is long |                       | d
                          | is borrowed, runs d   |
    ends c, is returned   | runs e                | e, …

Functions that ran for long are remembered: when one is called again, another reader takes over at
once. All calls begin in order of arrival.

    State of the line               | calls | current | coming
    nothing to do                   | none  | None    | 0
    a reader is about to check      | any   | None    | > 0
    a reader runs one after another | any   | it      | any
"""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, final

from sqlalchemy import Engine

from ..compat.background import start_task
from ..compat.greenlets import greenlet_spawn
from ..compat.sqlalchemy_core import raw_connection
from ..errors import ReadTimeout
from ..execution.long_functions import LongFunctions
from ..execution.mailbox import Mailbox
from ..mutex import new_lock
from ..pools.base import FairPool, waits_for_others
from ..system.clock import call_at, loop_time, time
from ..system.loop_state import of_running_loop
from ..turn.snapshots import Snapshots
from ..turn.waits import Beginning, WaitedFor
from .borrowed import give_back
from .borrowed_reader import PATIENCE_SECONDS, BorrowedReader
from .read_call import ReadCall


@final
class ReadLine:
    """The waiting calls of one event loop, and the readers that serve them.

    ``threads`` are the threads in which functions of the application run, ``seconds`` is how long
    a call waits; None means no limit.
    """

    def __init__(
        self,
        engine: Engine,
        label: str,
        long: LongFunctions,
        threads: set[int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        pool = engine.pool
        assert isinstance(pool, FairPool)
        self.seconds: float | None = pool.timeout()
        self.watch = pool.wait_watch
        self._label = label
        self._clock = clock
        self.long = long
        self.threads = threads
        self.loop = weakref.ref(asyncio.get_running_loop())
        self.post = of_running_loop(Mailbox).post
        self._mutex = new_lock()
        # calls non-empty ⇒ current is not None, or coming > 0, or either is about to hold
        self._calls: OrderedDict[ReadCall[Any], None] = OrderedDict()
        self._current: BorrowedReader | None = None  # the reader that takes the next call
        self._coming = 0  # readers that are being borrowed, or have ended a hop
        self._gap: Snapshots | None = None  # set after a gap that may not have ended yet
        self._readers: set[BorrowedReader] = set()
        self._tasks: set[asyncio.Future[None]] = set()
        self._watches = False  # a timer checks for a long call
        self._times = False  # a timer checks deadlines
        self._notes = False  # a timer checks for calls that have waited for long

    @property
    def waiting(self) -> bool:
        """True if calls wait."""
        return bool(self._calls)

    @property
    def _pool(self) -> FairPool:
        """The engine's pool, which ``dispose()`` replaces with a new one."""
        pool = self._engine.pool
        assert isinstance(pool, FairPool)
        return pool

    # -- calls that arrive, or no longer wait -----------------------------------------------------

    def add(self, call: ReadCall[Any]) -> None:
        """Add ``call`` to the line, to run after the calls that arrived before it."""
        with self._mutex:
            self._calls[call] = None
            current, coming = self._current, self._coming
        try:
            self._see_that_it_runs(call, current, coming)
        except BaseException:  # the stack is exhausted, or a signal handler has raised it
            self.drop(call)
            raise

    def _see_that_it_runs(
        self, call: ReadCall[Any], current: BorrowedReader | None, coming: int
    ) -> None:
        if current is None:
            if not coming:
                self._see_to_calls()
        elif not self._watches:
            self._watch()
        if not self._times and call.deadline is not None:
            self._look_at_deadlines_at(call.deadline)
        if not self._notes and self.watch.limit is not None:
            self._note_holders_in(self.watch.limit)

    def beginning(self) -> Beginning | None:
        """Return what to observe about the wait of a call that is added now, if anything."""
        return None if self.watch.observer is None else self.watch.beginning(self._pool.line)

    def drop(self, call: ReadCall[Any]) -> bool:
        with self._mutex:
            return self._calls.pop(call, call) is None

    def send_away(self, error: Callable[[], Exception]) -> None:
        """Raise ``error()`` in all waiting calls. This runs in the loop, outside any task."""
        with self._mutex:
            waiting = list(self._calls)
            self._calls.clear()
        for call in waiting:
            call.fail(error())
            call.report()

    def _look_at_deadlines_at(self, deadline: float) -> None:
        _call_at(deadline, self._look_at_deadlines)
        self._times = True  # only now: the call may fail if the stack is nearly exhausted

    def _look_at_deadlines(self) -> None:
        self._times = False
        now, overdue, later = loop_time(asyncio.get_running_loop()), [], None
        with self._mutex:
            for call in self._calls:
                if call.deadline is None or call.deadline > now:
                    later = call.deadline
                    break
                overdue.append(call)
            for call in overdue:
                del self._calls[call]
        for call in overdue:
            self._pool.counts.functions_timed_out += 1
            call.fail(self._not_in_time())
            call.report()
        if later is not None and not self._times:
            self._look_at_deadlines_at(later)

    def _note_holders_in(self, seconds: float) -> None:
        _call_at(loop_time(asyncio.get_running_loop()) + seconds, self._note_holders)
        self._notes = True

    def _note_holders(self) -> None:
        """Note what blocks the calls that have waited for long by now."""
        self._notes = False
        limit = self.watch.limit
        assert limit is not None
        now, later = time.monotonic(), None
        with self._mutex:
            calls = [call for call in self._calls if call.held_by is None]
        for call in calls:
            if now - call.began < limit:
                later = call.began + limit - now
                break
            call.held_by = self._describe_holders()
        if later is not None:
            self._note_holders_in(later)

    def _describe_holders(self) -> str:
        if self._gap is not None and self._gap.in_gap:
            return "no reader: the log is being emptied"
        return self._pool.describe_holders()

    def call_ended(
        self, call: ReadCall[Any], beginning: Beginning | None, error: BaseException | None
    ) -> None:
        """Report the wait of ``call``, which was long or is observed, in its task's coroutine."""
        self.watch.call_ended(WaitedFor.READER, self._label, call, beginning, error)

    def _not_in_time(self) -> Exception:
        pool = self._pool
        if self._gap is not None and self._gap.in_gap:
            return ReadTimeout(
                f"waited {pool.timeout():.2f} s to read from {self._label}; no read transaction "
                "can begin while its log is being emptied; raise read_timeout, or lower reader_gap"
            )
        return pool.not_in_time()

    # -- readers for the calls --------------------------------------------------------------------

    def _see_to_calls(self) -> None:
        """Borrow a reader, in the loop, if calls wait and no reader serves them or is about to."""
        with self._mutex:
            if not self._calls or self._current is not None or self._coming:
                return
            self._coming += 1
        try:
            self._start(self._borrow(), self._borrowed)
        except BaseException:  # otherwise, the next calls would wait for that reader
            with self._mutex:
                self._coming -= 1
            raise

    def _start(
        self, work: Coroutine[Any, Any, None], then: Callable[[asyncio.Future[None]], None]
    ) -> None:
        try:
            task = start_task(work, f"reads of {self._label}")
        except BaseException:
            work.close()
            raise
        try:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(then)
        except BaseException:  # otherwise, both the caller and then() would count the reader
            task.cancel()
            raise

    async def _borrow(self) -> None:
        waits_for_others.set(True)
        if self._gap is not None:
            await self._gap.until_no_gap()
            self._gap = None
        pool = self._pool
        fairy = await greenlet_spawn(raw_connection, self._engine)
        reader = BorrowedReader(self, self._engine, pool, fairy, self._clock)
        self._readers.add(reader)
        try:
            self.came_back(reader)
        except BaseException:
            with self._mutex:
                self._coming += 1  # as before: _borrowed() will decrement it
            raise

    def _borrowed(self, task: asyncio.Future[None]) -> None:
        """After an error or a cancellation, borrow another reader for the waiting calls."""
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            return
        call = None
        with self._mutex:
            self._coming -= 1
            if not task.cancelled() and self._calls and self._current is None:
                call, _ = self._calls.popitem(last=False)
        if call is not None:
            call.fail(error)
            call.report()
        self._see_to_calls()

    def came_back(self, reader: BorrowedReader) -> None:
        """Let ``reader``, which is at rest, serve the line, or check it in. Runs in the loop."""
        try:
            stays = reader.may_stay(self._clock())
        except BaseException:  # from a signal handler: the reader would be lost
            with self._mutex:
                self._coming -= 1
            self._give_back(reader)
            self._see_to_calls()
            raise
        with self._mutex:
            self._coming -= 1
            serves = stays and self._current is None and bool(self._calls)
            if serves:
                self._current = reader
        if serves and reader.serve():
            self._watch()
            return
        if serves:
            self.leave(reader)
            with self._mutex:
                self._coming -= 1
        self._give_back(reader)
        self._see_to_calls()

    def _give_back(self, reader: BorrowedReader) -> None:
        if reader.gap is not None:
            self._gap = reader.gap
            if not self._times:  # at the last check, its call was not waiting; now it is
                self._look_at_deadlines()
        with self._mutex:
            self._readers.discard(reader)
            fairy = reader.take_fairy()
        if fairy is None:
            return
        if reader.given_up:
            fairy.invalidate()
        elif reader.needs_no_wait:
            fairy.close()
        else:
            try:
                self._start(
                    give_back(fairy, reader.executor),
                    lambda task: (
                        fairy.invalidate() if task.cancelled() and fairy.is_valid else None
                    ),
                )
            except BaseException:
                fairy.invalidate()
                raise

    def close_readers_at_rest(self) -> None:
        """Check in readers whose calls have ended, before a fork. Any thread may call this."""
        with self._mutex:
            resting = [r for r in self._readers if r is not self._current and r.at_rest]
            given_back = [fairy for reader in resting if (fairy := reader.take_fairy())]
        for fairy in given_back:
            fairy.close()

    # -- in the readers' threads ------------------------------------------------------------------

    def take(self, reader: BorrowedReader, now: float) -> ReadCall[Any] | None:
        """Take the next call for ``reader``; None if the reader has to stop."""
        with self._mutex:
            claims = self._current is None
            if not self._calls or not (claims or self._current is reader):
                return None
            if not reader.clean or (now >= reader.look_at and not reader.may_stay_longer(now)):
                return None
            call, _ = self._calls.popitem(last=False)
            reader.call, reader.since = call, now
            call.taken_at = now
            is_long = self.long.known and self.long.expected(call.fn) >= PATIENCE_SECONDS
            if is_long or claims:
                self._current = None if is_long else reader
                if self._calls:
                    self.post(self._see_to_calls if is_long else self._watch)
        return call

    def put_back(self, call: ReadCall[Any]) -> None:
        """Put ``call``, which has not run, back at the head of the line."""
        call.taken_at = None
        with self._mutex:
            self._calls[call] = None
            self._calls.move_to_end(call, last=False)

    def leave(self, reader: BorrowedReader) -> None:
        """Note that ``reader`` takes no more calls in this hop, and returns to the loop."""
        with self._mutex:
            reader.call = None
            self._coming += 1
            if self._current is reader:
                self._current = None

    # -- long calls -------------------------------------------------------------------------------

    def _watch(self) -> None:
        if not self._watches and self._calls:
            _call_at(loop_time(asyncio.get_running_loop()) + PATIENCE_SECONDS, self._look)
            self._watches = True

    def _look(self) -> None:
        """Let another reader take over from one whose call delays the others."""
        self._watches = False
        with self._mutex:
            reader = self._current
            if not self._calls or reader is None:
                return
            is_long = self._clock() - reader.since >= PATIENCE_SECONDS
            if reader.call is not None and is_long:
                self._current = None
        reader.report_done()
        self._see_to_calls()
        self._watch()


def _call_at(when: float, method: Callable[[], None]) -> None:
    """Call a method at a loop time, in an empty context, if its object still exists then."""
    call_at(
        asyncio.get_running_loop(),
        when,
        _call,
        weakref.WeakMethod(method),
        context=contextvars.Context(),
    )


def _call(reference: weakref.WeakMethod[Callable[[], None]]) -> None:
    method = reference()
    if method is not None:
        method()
