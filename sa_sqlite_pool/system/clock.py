"""The clock of the machine, and timers by it, whatever tests have put in the place of ``time``.

A test that stops the clock of its application (freezegun), or patches ``time.monotonic`` or
``time.sleep``, means the application's figures. It does not mean waits for locks: a clock that
jumps by years would end them all at once, and one that stands still would let none go on. Event
loops ask ``time.monotonic`` themselves, so that their timers jump and stand still as well.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time as application_time
import types
from collections.abc import Callable, Generator
from importlib.machinery import BuiltinImporter
from importlib.util import module_from_spec
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    import time as time  # noqa: PLC0414 - for other modules
else:
    # Another instance of the module, with functions of its own. What replaces those of the other
    # one looks for them in `sys.modules`, and in the names of all modules there.
    _spec = BuiltinImporter.find_spec("time")
    time = module_from_spec(_spec)
    _spec.loader.exec_module(time)

# Loops have timers of a resolution of a millisecond.
_RESOLUTION_SECONDS = 0.001


def is_replaced() -> bool:
    """Return whether loops may go by something else than the clock of the machine."""
    return type(application_time.monotonic) is not types.BuiltinFunctionType


def loop_time(loop: asyncio.AbstractEventLoop) -> float:
    """Return the time of ``loop``, or what it would be if nothing were replaced."""
    # As is_replaced() does, without the call: each function of run_read() asks.
    replaced = type(application_time.monotonic) is not types.BuiltinFunctionType
    return time.monotonic() if replaced else loop.time()


@final
class Timer:
    """A call of ``callback(*arguments)`` in ``loop`` at ``when``, as :func:`loop_time` counts."""

    __slots__ = ("_arguments", "_callback", "_context", "_handle", "_loop", "_when")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        when: float,
        callback: Callable[..., object],
        arguments: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> None:
        self._loop = loop
        self._when = when
        self._callback: Callable[..., object] | None = callback
        self._arguments = arguments
        self._context = context
        self._handle: asyncio.TimerHandle | threading.Timer | None
        self._set()

    def when(self) -> float:
        """Return the time of the call."""
        return self._when

    def cancel(self) -> None:
        """Do without the call, if it has not been made. In the loop."""
        self._callback, self._arguments = None, ()
        if self._handle is not None:
            self._handle.cancel()

    def _set(self) -> None:
        if not is_replaced():
            self._handle = self._loop.call_at(self._when, self._passed, context=self._context)
            return
        if self._context is None:
            self._context = contextvars.copy_context()
        self._handle = threading.Timer(max(0.0, self._when - time.monotonic()), self._wake)
        self._handle.daemon = True
        self._handle.start()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._passed, context=self._context)
        except RuntimeError:
            return  # it is closed

    def _passed(self) -> None:
        self._handle = None  # it refers to this object
        if self._callback is None:
            return
        if loop_time(self._loop) < self._when - _RESOLUTION_SECONDS:
            self._set()  # the loop's clock has jumped
            return
        callback, arguments = self._callback, self._arguments
        self._callback, self._arguments = None, ()
        callback(*arguments)


def call_at(
    loop: asyncio.AbstractEventLoop,
    when: float,
    callback: Callable[..., object],
    *arguments: object,
    context: contextvars.Context | None = None,
) -> Timer:
    """Call ``callback(*arguments)`` in ``loop``, which runs this, when :func:`loop_time` is so."""
    return Timer(loop, when, callback, arguments, context)


def call_later(
    loop: asyncio.AbstractEventLoop,
    seconds: float,
    callback: Callable[..., object],
    *arguments: object,
    context: contextvars.Context | None = None,
) -> Timer:
    """Call ``callback(*arguments)`` in ``loop``, which runs this, after ``seconds``.

    A timer that is set for more than its caller has an empty context: it would keep the caller's,
    and so would the next one that it sets, and the log would take its lines for the caller's.
    """
    return Timer(loop, loop_time(loop) + seconds, callback, arguments, context)


async def sleep(seconds: float) -> None:
    """Wait for ``seconds``, of which ``asyncio.sleep()`` need not know: tests patch that, too."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    timer = call_later(loop, seconds, resolve, over)
    try:
        await over
    finally:
        timer.cancel()


def resolve(future: asyncio.Future[None]) -> None:
    """Wake what awaits ``future``, unless that was woken or cancelled before. In its loop."""
    if not future.done():
        future.set_result(None)


async def let_others_run() -> None:
    """Wait for a lap of the event loop."""
    await _lap()


@types.coroutine
def _lap() -> Generator[None, None, None]:
    yield
