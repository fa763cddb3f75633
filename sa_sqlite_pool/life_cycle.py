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
from .system.clock import let_others_run
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


def _took(tokens: list[None]) -> bool:
    """Take the token, in one atomic step of the interpreter: only one of several threads can."""
    try:
        tokens.pop()
    except IndexError:
        return False
    return True


@final
class _Closing:
    """The work of ``close()``, as a task of the loop in which this object is created.

    ``ended`` completes with the task: with None, with its error, or cancelled like the task. If the
    work is given up, by a cancellation or by its loop, :attr:`given_up` is True; another task takes
    over, the one that gets the token of ``to_take_over``. A child process does not have the task.
    """

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.ended: Future[None] = Future()
        self.to_take_over: list[None] = [None]
        self._loop = asyncio.get_running_loop()
        self._inherited = False
        # Stored, since a loop holds only weak references to tasks, and the caller may be cancelled.
        self._task = asyncio.ensure_future(work())
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
        self._inherited, self.to_take_over = True, [None]


@final
class _Term:
    """The time from one opening to its close, which another term may follow.

    Each token is for a single thread: the one that opens, or closes.
    """

    def __init__(self) -> None:
        self.to_open: list[None] = [None]
        self.to_close: list[None] = [None]
        self.closing: _Closing | None = None

    @property
    def state(self) -> State:
        if not self.to_close:
            closing = self.closing
            ended = closing is not None and closing.ended.done() and not closing.given_up
            return State.CLOSED if ended else State.CLOSING
        return State.NEW if self.to_open else State.OPEN


class LifeCycle(ABC):
    """Base class of a facade. Tasks that open or close it at the same time get the same result.

    They may be tasks of event loops in several threads.

    :param close_timeout: seconds for which :meth:`close` lets running work continue
    """

    def __init__(self, close_timeout: float) -> None:
        self._close_timeout = close_timeout
        self._term = _Term()
        self._beginning = new_lock()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        """Let the child process continue what threads of its parent were in the middle of."""
        self._beginning = new_lock()
        term = self._term
        if term.closing is not None:
            term.closing.leave_to_parent()
        elif not term.to_close:
            term.to_close.append(None)

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

        Opening an open database does nothing; a closed one is reopened.
        """
        if self._state is State.CLOSED:
            self._begin_again()
        term = self._term
        if term.state is State.NEW:
            try:
                await self._open_engines()
            except BaseException as error:
                # Unless another task has opened it meanwhile, or reopened it.
                if self._term is term and (term.to_open or not term.to_close):
                    await self._dispose_engines()
                if isinstance(error, Exception) and not term.to_close:  # caused by close()
                    raise self._not_open() from error
                raise
            if term.to_close and _took(term.to_open):  # not closed meanwhile
                self._has_opened()
        self._assert_open()
        return self

    def _begin_again(self) -> None:
        """Begin another term, unless another thread has done so."""
        with self._beginning:
            if self._state is State.CLOSED:
                self._admit()
                self._term = _Term()

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
        if _took(term.to_close):
            self._begin_closing(term, term.to_close, wait)
        while True:
            closing = term.closing
            if closing is None:  # another thread has just taken the token
                await let_others_run()
            elif closing.given_up:
                if _took(closing.to_take_over):
                    self._begin_closing(term, closing.to_take_over, wait)
                else:
                    await let_others_run()
            # A loop that ends notifies no other loop, so this checks from time to time.
            elif await done_in_time(closing.ended, HURRY_SECONDS) and not closing.given_up:
                return closing.ended.result()

    def _begin_closing(self, term: _Term, tokens: list[None], timeout: float) -> None:
        """Start closing, having taken the token of ``tokens``; return the token if this fails."""
        try:
            term.closing = _Closing(partial(self._shut, term, timeout))
        except BaseException:  # for example, because no asyncio loop runs here
            tokens.append(None)
            raise

    async def _shut(self, term: _Term, timeout: float) -> None:
        """Close what ``term`` has opened, as long as it is the current term.

        If the loop of this task was stopped, another may have closed and reopened the database.
        """
        try:
            for step in (partial(self._end_work, timeout), self._dispose_engines):
                if self._term is term:
                    await step()
        except Exception:  # for example of a listener; after a cancellation another task continues
            self._has_shut(term)
            raise
        self._has_shut(term)

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
        if term.to_open or not term.to_close:  # equivalent to a check of the state, without a call
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
