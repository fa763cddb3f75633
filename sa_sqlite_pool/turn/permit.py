"""The right to go on, what is known about its holder, and the place of a task that waits for it."""

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
    """What gives permits: a :class:`~.fair_semaphore.FairSemaphore`."""

    def release(self, permit: Permit) -> None: ...

    def recall_stranded(self, running: asyncio.AbstractEventLoop) -> None: ...

    def collect_abandoned(self) -> None: ...


@final
class Permit:
    """The right to go on, and what is known about its holder.

    ``line`` is the semaphore that has given it, None if none has. ``last_sql`` and ``idle_since``
    (monotonic seconds; None while a statement runs) are kept up to date by the connection that
    works under the permit. ``asked_at`` is the line of the application that asked for it,
    ``seconds_waited`` how long the task has waited for it.
    ``coming_back`` is True once the holder is done and a thread rolls its transaction back,
    ``given_back`` once the permit is released, ``sought`` once the garbage collector has looked for
    what its task has lost under it. ``recall`` releases the permit for a task that never can, and
    rolls back what was done under it; None if nothing was. ``waits_for()`` returns what the holder
    itself waits for, None if nothing any more.

    The task is referred to weakly: it keeps its exception, and the exception's traceback keeps
    every frame with its variables, so that a connection lost there would never be garbage.
    """

    # Class attributes for what comes later, if at all, since each checkout makes a permit.
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
        """The holder's task; None for code outside any task, and for a task that is garbage."""
        reference = self._task  # read once: a thread may set it meanwhile
        return None if reference is None else reference()

    @property
    def task_name(self) -> str | None:
        """The name of the holder's task, also if it has ended; None for code outside any task.

        It may have got its name after it got the permit: loops name an eager task when it has run
        up to its first wait.
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
        """Return what is known of the holder, as a value."""
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
        """Return what is known of the holder, for the record of an event."""
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
            details.append(f"which has ended and asked at {self.asked_at}")
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
                "this task was started under it: if the holder waits for this task, neither can "
                "go on; let it commit before"
            )
        return details


# How often a waiter looks whether the loop of a holder is closed, if there are several loops: a
# loop that ends tells nobody.
LOOK_SECONDS = 1.0


@final
class Waiter:
    """One task's place in line since ``since``. It is answered once: with a permit, or an error.

    ``number`` is how many waiters the line had ever had when this one joined, itself included.
    """

    __slots__ = ("error", "future", "line", "loop", "number", "owner", "permit", "since", "task")

    def __init__(
        self, line: Line, loop: asyncio.AbstractEventLoop, owner: object, since: float
    ) -> None:
        self.line = line
        self.loop = loop
        self.task = asyncio.current_task(loop)
        self.owner = owner
        self.since = since
        self.number = 0
        self.future: asyncio.Future[None] = loop.create_future()
        self.permit: Permit | None = None
        self.error: Exception | None = None

    def wake(self) -> None:
        """Wake the task to read its answer. Runs in the waiter's own event loop."""
        if not self.future.done():
            self.future.set_result(None)

    def begin_looking(self) -> None:
        """Take back, once in a while, what tasks of closed loops hold. In the waiter's loop."""
        of_running_loop(Deadlines).add(LOOK_SECONDS, self._look)

    def stop_looking(self) -> None:
        of_running_loop(Deadlines).discard(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self.loop.call_soon(self.line.recall_stranded, self.loop)
        self.begin_looking()

    def hand_over(self, permit: Permit) -> bool:
        """Make ``permit`` the waiter's; return False if the waiter's event loop is closed."""
        self.permit = permit
        if self._notify():
            return True
        self.permit = None
        return False

    def send_away(self, error: Exception) -> None:
        self.error = error
        self._notify()

    def _notify(self) -> bool:
        if _running_loop() is self.loop:
            self.wake()
            return True
        return call_unless_closed(self.loop, self.wake)


# A task starts with a copy of the context of the task that starts it, and so knows the permits
# of its ancestors: https://docs.python.org/3/library/asyncio-task.html#asyncio.create_task
_inherited: contextvars.ContextVar[tuple[weakref.ref[Permit], ...]] = contextvars.ContextVar(
    "sa_sqlite_pool_permits", default=()
)


# So many permits are passed on without a look at which of them are held still.
_FEW = 4


def pass_on_to_children(permit: Permit) -> None:
    """Let the tasks that the current task starts know that it holds ``permit``."""
    held = _inherited.get()
    if held and ((last := held[-1]()) is None or last.given_back):
        held = held[:-1]  # a task that asks for one connection after the other
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
    """Return whether an ancestor of the current task held ``permit`` when it started this one.

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
    """Return ``sql`` on one line, cut where it is long."""
    line = " ".join(sql[: 2 * _SHOWN_CHARACTERS].split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 1] + "…"


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
