"""The life cycle of an object that owns engines: it is opened, closed, and may be reopened."""

from __future__ import annotations

import asyncio
import enum
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, TypeVar, final

from .errors import DatabaseClosedError
from .mutex import new_lock
from .settings import check_timeout
from .system.forks import renew_after_fork
from .system.waiting import done_in_time

L = TypeVar("L", bound="LifeCycle")

HURRY_SECONDS = 0.5
"""The longest wait of ``close()`` for running work if a cancellation or Ctrl-C ends the block, and
for work to stop after it has been told to."""


class State(enum.Enum):
    """The state of a :class:`LifeCycle`: it moves down this list, and back to NEW to reopen."""

    NEW = "new"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


_REMEDIES = {
    State.NEW: "is not open; use `async with db:` or `await db.open()` first",
    State.CLOSING: "is being closed; open it again when `await db.close()` has returned",
    State.CLOSED: "was closed; open it again with `async with db:` or `await db.open()`",
}


@final
class _Closing:
    """The work of ``close()``, as a task of the loop in which this object is created.

    ``ended`` completes with the task: with None, with its error, or cancelled like the task. If the
    work is given up, by a cancellation or by its loop, :attr:`given_up` is True, and another task
    takes over. A child process does not have the task.
    """

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.ended: Future[None] = Future()
        self._loop = asyncio.get_running_loop()
        self._inherited = False
        # Not by the loop's task factory, which may run the first step of the work at once.
        # Stored, since a loop holds only weak references to tasks, and the caller may be cancelled.
        self._task = asyncio.Task(work(), loop=self._loop)
        self._task.add_done_callback(self._has_ended)

    def _has_ended(self, task: asyncio.Future[None]) -> None:
        if task.cancelled():
            self.ended.cancel()
        elif (error := task.exception()) is not None:
            self.ended.set_exception(error)
        else:
            self.ended.set_result(None)

    @property
    def given_up(self) -> bool:
        """True if it was cancelled, or its loop is not running: closed, or left by its program."""
        ended, runs = self.ended, not self._inherited and self._loop.is_running()
        return ended.cancelled() or not (ended.done() or runs)

    def leave_to_parent(self) -> None:
        """Give up the work in a child process, which closes its own connections itself."""
        self._inherited = True


@final
class _Term:
    """The time from one opening to its close, which another term may follow.

    Both attributes are set under the lock of their :class:`LifeCycle`, by one of several threads.
    """

    def __init__(self) -> None:
        self.opened = False
        self.closing: _Closing | None = None

    @property
    def state(self) -> State:
        closing = self.closing
        if closing is None:
            return State.OPEN if self.opened else State.NEW
        return State.CLOSED if closing.ended.done() and not closing.given_up else State.CLOSING


class LifeCycle(ABC):
    """Base class of a facade. Tasks that open or close it at the same time get the same result.

    They may be tasks of event loops in several threads.

    :param close_timeout: seconds for which :meth:`close` lets running work continue
    """

    def __init__(self, close_timeout: float) -> None:
        self._close_timeout = close_timeout
        self._term = _Term()
        self._changing = new_lock()  # held while the state changes, for a few instructions
        self._disposal: Future[None] | None = None  # the last, which may have ended
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        """Let the child process continue what threads of its parent were in the middle of."""
        self._changing = new_lock()
        self._disposal = None
        if self._term.closing is not None:
            self._term.closing.leave_to_parent()

    @property
    def _state(self) -> State:
        return self._term.state

    @property
    @abstractmethod
    def _label(self) -> str:
        """The name of the database, for messages."""

    @abstractmethod
    def _admit(self) -> None:
        """Accept work again, after :meth:`close`."""

    @abstractmethod
    async def _open_engines(self) -> None:
        """Open the first connections; raise if this fails."""

    def _has_opened(self) -> None:  # noqa: B027
        """Start the other services of an open database."""

    def _has_closed(self) -> None:  # noqa: B027
        """Undo what :meth:`_has_opened` and the constructor have done."""

    @abstractmethod
    async def _end_work(self, timeout: float) -> None:
        """Let running work continue for ``timeout`` seconds, stop the rest, and refuse new work.

        Change nothing once ``_term`` is no longer the term that this call began with.
        """

    @abstractmethod
    async def _dispose_engines(self) -> None:
        """Close all connections."""

    async def open(self: L) -> L:
        """Open the first connections. Raise SQLAlchemy's errors, with advice.

        Opening an open database does nothing; a closed one is reopened, after :meth:`close` if that
        was given up by its event loop.
        """
        closing = self._term.closing
        if closing is not None and closing.given_up:
            await self.close()
        if self._state is State.CLOSED:
            self._begin_again()
        term = self._term
        if term.state is State.NEW:
            try:
                await self._open_engines()
            except BaseException as error:
                # Unless another task has opened it meanwhile, or reopened it.
                if self._term is term and self._state is not State.OPEN:
                    await self._dispose()
                if isinstance(error, Exception) and term.closing is not None:  # the cause
                    raise self._not_open() from error
                raise
            if self._note_opened(term):
                self._has_opened()
        self._assert_open()
        return self

    def _begin_again(self) -> None:
        """Begin another term, unless another thread has done so."""
        with self._changing:
            if self._state is State.CLOSED:
                self._admit()
                self._term = _Term()

    def _note_opened(self, term: _Term) -> bool:
        """Return True to the first task that opens, unless the term is closed meanwhile."""
        with self._changing:
            first = term.state is State.NEW
            term.opened = term.opened or first
        return first

    async def close(self, timeout: float | None = None) -> None:
        """Close all connections. Return in bounded time, whatever else is running.

        Tasks that wait in line, and new ones, get a :class:`~sa_sqlite_pool.DatabaseClosedError`.
        Work on a checked-out connection may continue for ``timeout`` seconds (by default
        ``close_timeout``); then its statement is interrupted and its transaction rolled back, and
        its next statement fails with an ``OperationalError`` that says so.

        Closing twice does nothing, and tasks that close at the same time wait for the same end. A
        cancellation stops the wait, not the closing; if the loop that runs it is stopped or
        closed itself, one of the other tasks continues.
        """
        wait = self._close_timeout if timeout is None else check_timeout("timeout", timeout)
        term = self._term
        while True:
            closing = self._begin_closing(term, wait)
            # A loop that ends notifies no other loop, so this checks from time to time.
            if await done_in_time(closing.ended, HURRY_SECONDS) and not closing.given_up:
                return closing.ended.result()

    def _begin_closing(self, term: _Term, timeout: float) -> _Closing:
        """Return the closing of ``term``; start it unless a running task is doing it."""
        with self._changing:
            closing = term.closing
            if closing is None or closing.given_up:
                closing = term.closing = _Closing(partial(self._shut, term, timeout))
        return closing

    async def _shut(self, term: _Term, timeout: float) -> None:
        """Close what ``term`` has opened, as long as it is the current term.

        If the loop of this task was stopped, another may have closed and reopened the database.
        """
        try:
            for step in (partial(self._end_work, timeout), self._dispose):
                if self._term is term:
                    await step()
        except Exception:  # for example of a listener; after a cancellation another task continues
            self._has_shut(term)
            raise
        self._has_shut(term)

    async def _dispose(self) -> None:
        """Dispose of the engines, after any other call that does so.

        A failed ``open()`` and ``close()`` may do this at the same time, and SQLAlchemy's engine
        would lose the pool that the first of them has made, with its connections. The other call
        may belong to a loop that stands still, so the wait is short.
        """
        waited, mine = False, Future[None]()
        while True:
            with self._changing:
                other = self._disposal
                if waited or other is None or other.done():
                    self._disposal = mine
                    break
            waited = not await done_in_time(other, HURRY_SECONDS)
        try:
            await self._dispose_engines()
        finally:
            mine.set_result(None)

    def _has_shut(self, term: _Term) -> None:
        if self._term is term:
            self._has_closed()

    async def __aenter__(self: L) -> L:
        return await self.open()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        hurried = exc is not None and not isinstance(exc, Exception)
        await self.close(min(HURRY_SECONDS, self._close_timeout) if hurried else None)

    def _assert_open(self) -> None:
        term = self._term
        if not term.opened or term.closing is not None:  # the state is not OPEN, without a call
            raise self._not_open()

    def _not_open(self) -> DatabaseClosedError:
        return _not_open(self._label, self._state)

    def _refusal(self) -> Callable[[], DatabaseClosedError]:
        """Return a function that creates the error of :meth:`_not_open`, with a weak reference.

        Connectors keep the function, and SQLAlchemy's mappers keep their dialects.
        """
        reference, label = weakref.ref(self), self._label

        def refusal() -> DatabaseClosedError:
            owner = reference()
            return _not_open(label, State.CLOSED if owner is None else owner._state)

        return refusal


def _not_open(label: str, state: State) -> DatabaseClosedError:
    return DatabaseClosedError(f"{label} {_REMEDIES.get(state, _REMEDIES[State.CLOSED])}")
