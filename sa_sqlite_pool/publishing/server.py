"""The thread that answers at a socket beside a database.

It waits in ``poll()`` while nobody asks, and it builds the answer by itself: an event loop that is
stuck can be looked at, too. It alone opens, closes and removes the socket, so the event loop never
waits for the disk.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable
from typing import final

from ..system.clock import time
from ..system.forks import rest
from . import addresses
from .peers import peer_of

_WAITING = 16  # connections that wait to be accepted
_SEND_SECONDS = 1.0
_PAUSE_SECONDS = 1.0

# Tests that forbid connections (pytest-socket) put another class in its place, which warns.
_Socket = socket.socket

# The application may have given SIGPIPE back its effect, which is to end the process.
_NO_SIGNAL: int = getattr(socket, "MSG_NOSIGNAL", 0)


@final
class Server:
    """A socket beside ``file``, where each connection gets ``answer()``, and its thread.

    The thread refers to this object, so nothing here may refer to what :meth:`stop` waits for.
    """

    def __init__(self, file: str, answer: Callable[[], bytes]) -> None:
        self.path = addresses.new_path(file)
        self._file = file
        self._answer = answer
        self._listener: socket.socket | None = None
        self._client: socket.socket | None = None
        with rest():  # or a child forked meanwhile would inherit descriptors it never closes
            self._told, self._tell = os.pipe()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="sa_sqlite_pool-status", daemon=True)

    def start(self) -> None:
        """Start the thread; raise ``RuntimeError`` if the system has no more."""
        try:
            self._thread.start()
        except RuntimeError:
            self.abandon()
            raise

    def stop(self) -> None:
        """Tell the thread to end, and remove the socket. From any thread, and at any time."""
        if self._stopped:
            return
        self._stopped = True
        os.close(self._tell)  # poll() reports the end of the pipe
        if self._listener is not None:  # at the exit of the process, the thread may run no more
            self._remove()

    def join(self, timeout: float) -> None:
        """Wait for the end of the thread, at most ``timeout`` seconds."""
        self._thread.join(timeout)

    def abandon(self) -> None:
        """Close all that is open, where there is no thread: in a child process, for example.

        This leaves the socket to the parent.
        """
        if not self._stopped:
            self._stopped = True
            os.close(self._tell)
        self._close()

    # -- in the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            addresses.remove_stale(self._file)
            self._listen()
            self._serve()
            addresses.remove_stale(self._file)
        except (OSError, RuntimeError, MemoryError):
            pass  # no socket can be made there, or a test forbids it; nothing depends on it
        finally:
            if self._listener is not None:
                self._remove()
            self._close()

    def _listen(self) -> None:
        with rest():
            listener = _Socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                listener.setblocking(False)
                addresses.bind(listener, self.path)
                listener.listen(_WAITING)
            except BaseException:
                listener.close()
                raise
            self._listener = listener

    def _serve(self) -> None:
        assert self._listener is not None
        while self._wait_for(self._listener, select.POLLIN, None):
            try:
                with rest():
                    self._client, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):  # it has hung up
                continue
            except (OSError, MemoryError):  # too many open files: the connection stays in line
                if self._is_told(_PAUSE_SECONDS):
                    return
                continue
            with self._client, contextlib.suppress(OSError, MemoryError):
                self._reply(self._client)

    def _reply(self, client: socket.socket) -> None:
        client.setblocking(False)
        peer = peer_of(client)
        if peer is not None and not peer.may_ask:
            return
        with rest():  # a fork must not find the mutexes of what is counted taken
            rest_of_it = memoryview(self._answer())
        give_up = time.monotonic() + _SEND_SECONDS
        while rest_of_it and self._wait_for(client, select.POLLOUT, give_up):
            rest_of_it = rest_of_it[client.send(rest_of_it, _NO_SIGNAL) :]

    def _wait_for(self, what: socket.socket, event: int, give_up: float | None) -> bool:
        """Wait for ``event``; return False if it is time to end, or to give up."""
        poller = select.poll()
        poller.register(self._told, select.POLLIN)
        poller.register(what, event)
        wait = None if give_up is None else max(0.0, give_up - time.monotonic()) * 1000
        ready = dict(poller.poll(wait))
        return bool(ready) and self._told not in ready

    def _is_told(self, seconds: float) -> bool:
        # Not by select(), which takes no descriptor above 1,023.
        poller = select.poll()
        poller.register(self._told, select.POLLIN)
        return bool(poller.poll(seconds * 1000))

    # -- the end ---------------------------------------------------------------------------------

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def _close(self) -> None:
        told, self._told = self._told, -1
        if told >= 0:
            os.close(told)
        for opened in (self._listener, self._client):
            if opened is not None:
                opened.close()
        self._listener = self._client = None
