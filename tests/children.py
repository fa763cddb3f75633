"""Child processes of a test that start within milliseconds, and communicate with it over a pipe.

They are forked from a server that has imported the package and has opened nothing
(https://docs.python.org/3/library/multiprocessing.html#contexts-and-start-methods). So starting
twenty at the same instant, or replacing one that was killed, does not take the second that
interpreters need for their imports.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import pytest

SECONDS = 30.0
"""The time limit for a response; a process that takes longer hangs."""

needs_fork_server = pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(),
    reason="there is no fork server here",
)


class Child:
    """``with Child(main, *arguments) as child:`` a process that runs ``main(pipe, *arguments)``.

    ``main`` is a module-level function, which sends and receives objects that can be pickled. The
    process ends at the latest with the block, or, if it waits on the pipe, with its parent.
    """

    def __init__(self, main: Callable[..., object], *arguments: object) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.child_programs"])
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(theirs, main, arguments), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def sentinel(self) -> int:
        """A handle for ``multiprocessing.connection.wait``, ready when the process has ended."""
        return self._process.sentinel

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def tell(self, word: object) -> None:
        self._pipe.send(word)

    def hear(self, seconds: float = SECONDS) -> Any:
        """Return its next message. Raise ``AssertionError`` with its traceback if it fails."""
        assert self._pipe.poll(seconds), f"process {self.pid} says nothing for {seconds:g} s"
        try:
            word = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            raise AssertionError(f"process {self.pid} ended: {self._process.exitcode}") from None
        if isinstance(word, _Failure):
            raise AssertionError(f"in process {self.pid}:\n{word.report}")
        return word

    def ask(self, word: object, seconds: float = SECONDS) -> Any:
        """Send it a message, and return its response."""
        self.tell(word)
        return self.hear(seconds)

    def stop(self) -> None:
        """Stop the process, with all its threads, until :meth:`go_on`."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill it at once, whatever it is doing. Its last messages can still be received."""
        self._process.kill()
        self._process.join()

    def ended(self, seconds: float = SECONDS) -> int:
        """Wait until it has ended by itself, and return its exit code."""
        self._process.join(seconds)
        code = self._process.exitcode
        assert code is not None, f"process {self.pid} does not end within {seconds:g} s"
        return code

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        self._process.close()
        self._pipe.close()


async def heard(pipe: Connection) -> Any:
    """In a child, return the next message of the parent, without blocking the loop."""
    loop, there = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pipe, there.set)
    try:
        await there.wait()
    finally:
        loop.remove_reader(pipe)
    return pipe.recv()


class _Failure:
    def __init__(self, report: str) -> None:
        self.report = report


def _run(pipe: Connection, main: Callable[..., object], arguments: tuple[object, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    try:
        main(pipe, *arguments)
    except SystemExit:
        raise
    except EOFError:
        os._exit(1)  # the parent is gone
    except BaseException:
        pipe.send(_Failure(traceback.format_exc()))
        raise SystemExit(1) from None
