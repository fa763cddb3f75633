"""The right to proceed, what is known about its holder, and a waiting task's place in line."""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Callable
from typing import Protocol, final

from ..reporting.events import HolderFields
from ..stats.lines import Holder
from ..system.loop_state import call_unless_closed, of_running_loop
from .deadlines import Deadlines
from .whereabouts import Caller, describe_task, whereabouts


class Line(Protocol):
    """What issues permits: a :class:`~.fair_semaphore.FairSemaphore`."""

    def release(self, permit: Permit) -> None: ...

    def recall_stranded(self, running: asyncio.AbstractEventLoop) -> None: ...

    def collect_abandoned(self) -> None: ...


@final
class Permit:
    """The right to proceed, and what is known about its holder.

    ``line`` is the semaphore that issued it, if any. ``last_sql`` and ``idle_since``
    (monotonic seconds; None while a statement runs) are kept up to date by the connection that
    works under the permit. ``asked_at`` is the source line of the application that requested it,
    ``seconds_waited`` how long the task waited for it.
    ``coming_back`` is True once the holder is done and a thread is rolling back its transaction,
    ``given_back`` once the permit is released, ``sought`` once the garbage collector has looked for
    connections its task has lost under it. ``recall`` releases the permit for a task that never
    can, and rolls back the work done under it; None if there is none. ``waits_for()`` describes
    what the holder itself waits for; it returns None once the holder no longer waits.

    The reference to the task is weak: a task keeps its exception, whose traceback keeps every frame
    with its variables, and a connection lost there would otherwise never become garbage.
    """

    # Class attributes for values set later, if at all, since each checkout creates a permit.
    seconds_waited = 0.0
    asked_at: Caller | None = None
    coming_back = False
    given_back = False
    sought = False
    last_sql: str | None = None
    recall: Callable[[], None] | None = None
    waits_for: Callable[[], str | None] | None = None

    def __init__(
        self, task: asyncio.Task[object] | None, since: float, line: Line | None = None
    ) -> None:
        if task is None:
            self._task = self._name = self.loop = None
        else:
            self._task, self._name = weakref.ref(task), task.get_name()
            self.loop = task.get_loop()
        self.since = since
        self.idle_since: float | None = since
        self.line = line

    @property
    def stranded(self) -> bool:
        """True if the holder's event loop is closed: its task will never run again."""
        return self.loop is not None and self.loop.is_closed()

    @property
    def task(self) -> asyncio.Task[object] | None:
        """The holder's task; None for code outside any task, and for a task that was collected."""
        reference = self._task  # read once: a thread may set it meanwhile
        return None if reference is None else reference()

    @property
    def task_name(self) -> str | None:
        """The name of the holder's task, even if it has ended; None for code outside any task.

        The task may be named after it has acquired the permit: loops name an eager task once it
        has run up to its first wait.
        """
        name, task = self._name, self.task
        return name if task is None else task.get_name()

    @property
    def is_of_ended_task(self) -> bool:
        reference = self._task
        return reference is not None and ((task := reference()) is None or task.done())

    def work_for(self, task: asyncio.Task[object] | None) -> None:
        """Make ``task`` (None: no task) the holder."""
        if task is None:
            self._task = self._name = None
        else:
            self._task, self._name = weakref.ref(task), task.get_name()

    def describe(self, now: float) -> str:
        """Return ``12.3 s by task 'import-42' (now at jobs.py:88, last SQL: UPDATE …)``."""
        return f"{now - self.since:.1f} s by {self.describe_holder()}"

    def describe_holder(self) -> str:
        """Return ``task 'import-42' (now at jobs.py:88, last SQL: UPDATE …)``."""
        name = describe_task(self.task_name)
        details = ", ".join(self._details())
        return f"{name} ({details})" if details else name

    def snapshot(self, now: float) -> Holder:
        """Return what is known about the holder, as a value."""
        asked_at, idle_since, waits_for = self.asked_at, self.idle_since, self.waits_for
        return Holder(
            task=describe_task(self.task_name),
            seconds=now - self.since,
            asked_at=None if asked_at is None else str(asked_at),
            now_at=whereabouts(self.task),
            sql=None if self.last_sql is None else shorten(self.last_sql),
            idle_seconds=None if idle_since is None else now - idle_since,
            waits_for=None if waits_for is None else waits_for(),
        )

    def fields(self) -> HolderFields:
        """Return what is known about the holder, for the record of an event."""
        return HolderFields(
            task=self.task_name,
            asked_at=None if self.asked_at is None else str(self.asked_at),
            now_at=whereabouts(self.task),
            sql=None if self.last_sql is None else shorten(self.last_sql),
        )

    def _details(self) -> list[str]:
        details = []
        if self.coming_back:
            details.append("whose transaction is being rolled back")
        elif self.is_of_ended_task:
            details.append(f"which has ended, having requested it at {self.asked_at}")
        elif self.stranded:
            details.append("whose event loop is closed")
        elif place := whereabouts(self.task):
            details.append(f"now at {place}")
        if (waits_for := self.waits_for) is not None and (found := waits_for()) is not None:
            details.append(f"itself waiting for {found}")
        if self.last_sql is not None:
            details.append(f"last SQL: {shorten(self.last_sql)}")
        if is_inherited(self):
            details.append(
                "this task was started while it was held: if the holder waits for this task, "
                "neither can continue; let the holder commit first"
            )
        return details


# How often a waiter checks whether a holder's loop is closed, if there are several loops: closing
# a loop notifies no other loop.
LOOK_SECONDS = 1.0


@final
class Waiter:
    """One task's place in line since ``since``. It is answered once: with a permit, or an error.

    ``number`` counts the waiters that had ever joined the line when this one did, itself included.
    The reference to the task is weak, as that of a permit is.
    """

    __slots__ = ("_task", "error", "future", "line", "loop", "number", "owner", "permit", "since")

    def __init__(
        self, line: Line, loop: asyncio.AbstractEventLoop, owner: object, since: float
    ) -> None:
        self.line = line
        self.loop = loop
        self.hand_to(asyncio.current_task(loop))
        self.owner = owner
        self.since = since
        self.number = 0
        self.future: asyncio.Future[None] = loop.create_future()
        self.permit: Permit | None = None
        self.error: Exception | None = None

    @property
    def task(self) -> asyncio.Task[object] | None:
        """The task that waits, or will wait; None for code outside any task."""
        return None if self._task is None else self._task()

    def hand_to(self, task: asyncio.Task[object] | None) -> None:
        """Make ``task`` (None: no task) the one that waits."""
        self._task = None if task is None else weakref.ref(task)

    def wake(self) -> None:
        """Wake the task to read its answer. Runs in the waiter's own event loop."""
        if not self.future.done():
            self.future.set_result(None)

    def begin_looking(self) -> None:
        """Start recalling, periodically, permits of tasks of closed loops. In the waiter's loop."""
        of_running_loop(Deadlines).add(LOOK_SECONDS, self._look)

    def stop_looking(self) -> None:
        of_running_loop(Deadlines).discard(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self.loop.call_soon(self.line.recall_stranded, self.loop)
        self.begin_looking()

    def hand_over(self, permit: Permit) -> bool:
        """Give ``permit`` to the waiter; return False if the waiter's event loop is closed."""
        self.permit = permit
        if self._notify():
            return True
        self.permit = None
        return False

    def send_away(self, error: Exception) -> None:
        self.error = error
        self._notify()

    def take_error(self) -> Exception:
        """Return the error for the task to raise, and forget it: its frames refer to this place."""
        assert self.error is not None
        try:
            return self.error
        finally:
            self.error = None

    def _notify(self) -> bool:
        if _running_loop() is self.loop:
            self.wake()
            return True
        return call_unless_closed(self.loop, self.wake)


# A task starts with a copy of the context of the task that creates it, and so knows its ancestors'
# permits: https://docs.python.org/3/library/asyncio-task.html#asyncio.create_task
_inherited: contextvars.ContextVar[tuple[weakref.ref[Permit], ...]] = contextvars.ContextVar(
    "sa_sqlite_pool_permits", default=()
)


# Up to this number, permits are passed on without checking which of them are still held.
_FEW = 4


def pass_on_to_children(permit: Permit) -> None:
    """Record ``permit`` in the context that tasks started by the current task will inherit."""
    held = _inherited.get()
    if held and ((last := held[-1]()) is None or last.given_back):
        held = held[:-1]  # a task that requests one connection after another
    elif len(held) > _FEW:
        held = tuple(filter(_is_held, held))
    _inherited.set((*held, weakref.ref(permit)))


def _is_held(reference: weakref.ref[Permit]) -> bool:
    permit = reference()
    return permit is not None and not permit.given_back


def is_own(permit: Permit) -> bool:
    """Return whether the current task holds ``permit``."""
    task = _current_task()
    return task is not None and permit.task is task


def is_inherited(permit: Permit) -> bool:
    """Return whether an ancestor held ``permit`` when it started the current task.

    False outside any task: a timer for several tasks runs in the context of the first of them.
    """
    task = _current_task()
    return (
        task is not None
        and permit.task is not task
        and any(reference() is permit for reference in _inherited.get())
    )


def _current_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


_SHOWN_CHARACTERS = 120


def shorten(sql: str) -> str:
    """Return ``sql`` on one line, truncated if it is long."""
    line = " ".join(sql[: 2 * _SHOWN_CHARACTERS].split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 1] + "…"


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
