"""The machine's clock, and timers that use it, even if tests have replaced functions of ``time``.

A test that stops its application's clock (freezegun), or patches ``time.monotonic`` or
``time.sleep``, wants to control the application's figures, not waits for locks: a clock that
jumps by years would end them all at once, and one that stands still would never end any. Event
loops use ``time.monotonic`` themselves, so their timers jump and stand still as well.
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
    # A second instance of the module, with its own functions. Libraries that replace those of the
    # first look for them in `sys.modules`, and in the namespaces of all modules there.
    _spec = BuiltinImporter.find_spec("time")
    time = module_from_spec(_spec)
    _spec.loader.exec_module(time)

# The timers of event loops have a resolution of a millisecond.
_RESOLUTION_SECONDS = 0.001


def is_replaced() -> bool:
    """Return whether loops may use something other than the machine's clock."""
    return type(application_time.monotonic) is not types.BuiltinFunctionType


def loop_time(loop: asyncio.AbstractEventLoop) -> float:
    """Return the time of ``loop``, or what it would be if nothing had been replaced."""
    # is_replaced(), inlined: each function of run_read() runs this.
    replaced = type(application_time.monotonic) is not types.BuiltinFunctionType
    return time.monotonic() if replaced else loop.time()


@final
class Timer:
    """A call of ``callback(*arguments)`` in ``loop`` at the :func:`loop_time` ``when``."""

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
        """Return the scheduled time of the call."""
        return self._when

    def cancel(self) -> None:
        """Cancel the call, unless it has been made. Runs in the loop."""
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
            return  # the loop is closed

    def _passed(self) -> None:
        self._handle = None  # the handle refers to this object
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
    """Schedule ``callback(*arguments)`` in ``loop``, the running loop, at ``when``."""
    return Timer(loop, when, callback, arguments, context)


def call_later(
    loop: asyncio.AbstractEventLoop,
    seconds: float,
    callback: Callable[..., object],
    *arguments: object,
    context: contextvars.Context | None = None,
) -> Timer:
    """Schedule ``callback(*arguments)`` in ``loop``, the running loop, after ``seconds``.

    A timer that serves more than its caller needs an empty context. Otherwise it would keep the
    caller's, as would the next timer that it sets, and log records would be attributed to it.
    """
    return Timer(loop, loop_time(loop) + seconds, callback, arguments, context)


async def sleep(seconds: float) -> None:
    """Wait for ``seconds`` without ``asyncio.sleep()``, since tests patch that, too."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    timer = call_later(loop, seconds, resolve, over)
    try:
        await over
    finally:
        timer.cancel()


def resolve(future: asyncio.Future[None]) -> None:
    """Resolve ``future`` to wake what awaits it, unless it is already done. Runs in its loop."""
    if not future.done():
        future.set_result(None)


async def let_others_run() -> None:
    """Yield to the event loop for one lap."""
    await _lap()


@types.coroutine
def _lap() -> Generator[None, None, None]:
    yield
