"""The thread that responds to queries on a socket beside a database.

It waits in ``poll()`` until a query arrives, and builds the response itself, so a blocked event
loop can be inspected, too. It alone opens, closes and removes the socket, so the event loop never
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

# Tests that forbid connections (pytest-socket) replace this class with one that warns.
_Socket = socket.socket

# The application may have restored the default action of SIGPIPE, which ends the process.
_NO_SIGNAL: int = getattr(socket, "MSG_NOSIGNAL", 0)


@final
class Server:
    """A socket beside ``file`` on which each connection receives ``answer()``, and its thread.

    The thread refers to this object, which must not refer to an object whose end calls stop().
    """

    def __init__(self, file: str, answer: Callable[[], bytes]) -> None:
        self.path = addresses.new_path(file)
        self._file = file
        self._answer = answer
        self._listener: socket.socket | None = None
        self._client: socket.socket | None = None
        with rest():  # a child forked meanwhile would inherit descriptors that it never closes
            self._told, self._tell = os.pipe()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="sa_sqlite_pool-status", daemon=True)

    def start(self) -> None:
        """Start the thread; raise ``RuntimeError`` if the system cannot start another thread."""
        try:
            self._thread.start()
        except RuntimeError:
            self.abandon()
            raise

    def stop(self) -> None:
        """Tell the thread to end, and remove the socket. Callable from any thread, at any time."""
        if self._stopped:
            return
        self._stopped = True
        os.close(self._tell)  # poll() reports the end of the pipe
        if self._listener is not None:  # the thread may not run again if the process is exiting
            self._remove()

    def join(self, timeout: float) -> None:
        """Wait for the thread to end, at most ``timeout`` seconds."""
        self._thread.join(timeout)

    def abandon(self) -> None:
        """Close all descriptors when there is no thread: in a child process, for example.

        The socket file is left to the parent.
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
            pass  # no socket can be created there, or a test forbids it; nothing depends on it
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
            except (BlockingIOError, ConnectionAbortedError):  # the client has disconnected
                continue
            except (OSError, MemoryError):  # too many open files: the connection stays queued
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
        with rest():  # a fork must not find the mutexes of the counters locked
            rest_of_it = memoryview(self._answer())
        give_up = time.monotonic() + _SEND_SECONDS
        while rest_of_it and self._wait_for(client, select.POLLOUT, give_up):
            rest_of_it = rest_of_it[client.send(rest_of_it, _NO_SIGNAL) :]

    def _wait_for(self, what: socket.socket, event: int, give_up: float | None) -> bool:
        """Wait for ``event``; return False if the thread has to end, or ``give_up`` has passed."""
        poller = select.poll()
        poller.register(self._told, select.POLLIN)
        poller.register(what, event)
        wait = None if give_up is None else max(0.0, give_up - time.monotonic()) * 1000
        ready = dict(poller.poll(wait))
        return bool(ready) and self._told not in ready

    def _is_told(self, seconds: float) -> bool:
        # Not select(), which accepts no descriptor above 1,023.
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
