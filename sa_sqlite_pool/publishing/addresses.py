"""The sockets beside a database that publish its statistics: ``app.db-status-4242-9f3a1c``.

The name contains the process ID and a few random digits, because processes in two containers may
have the same ID. It is never reused. A process that is killed leaves its socket behind, with no
listener; the next process that opens, closes or inspects the database removes the socket.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import sys
from collections.abc import Iterator

from ..system.clock import time

supported = hasattr(socket, "AF_UNIX") and hasattr(os, "register_at_fork")

# "sun_path" has 108 bytes on Linux (unix(7)) and 104 on macOS and the BSDs, with the final zero.
_MOST_BYTES = 103

# A connection is also refused between bind() and listen().
_STARTING_SECONDS = 2.0


def new_path(file: str) -> str:
    """Return a new name for a socket of this process beside ``file``."""
    return f"{file}-status-{os.getpid()}-{os.urandom(3).hex()}"


def paths(file: str) -> list[str]:
    """Return the sockets beside ``file``."""
    directory, name = os.path.split(file)
    known = re.compile(re.escape(name) + r"-status-\d+-[0-9a-f]+")
    try:
        with os.scandir(directory or ".") as entries:
            return sorted(
                os.path.join(directory, entry.name)
                for entry in entries
                if known.fullmatch(entry.name) and _is_socket(entry.path)
            )
    except OSError:
        return []


def process_of(path: str) -> int:
    """Return the ID of the process that created the socket ``path``."""
    return int(path.rsplit("-", maxsplit=2)[1])


def bind(listener: socket.socket, path: str) -> None:
    """Bind ``listener`` to a new socket file ``path``, which only its owner and root may use."""
    on_linux = sys.platform == "linux"
    if on_linux:  # the file takes the mode of the socket: unix_bind() in net/unix/af_unix.c
        os.fchmod(listener.fileno(), 0o600)
    with _short(path) as name:
        listener.bind(name)
    if not on_linux:
        os.chmod(path, 0o600)  # nothing can connect before listen()


def connect(path: str, timeout: float) -> socket.socket:
    """Return a connection to the socket ``path``; wait at most ``timeout`` seconds.

    Raise ``ConnectionRefusedError`` if nothing listens there, and ``BlockingIOError`` if the
    process is stopped and its queue of connections is full.
    """
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        client.settimeout(timeout)
        with _short(path) as name:
            client.connect(name)
        stack.pop_all()
        return client


@contextlib.contextmanager
def _short(path: str) -> Iterator[str]:
    """Yield a name for ``path`` that fits into a socket address, if there is one."""
    if len(os.fsencode(path)) <= _MOST_BYTES:
        yield path
        return
    directory, name = os.path.split(path)
    flags = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", 0)
    descriptor = os.open(directory, os.O_RDONLY | flags)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def remove_stale(file: str) -> None:
    """Remove the sockets of processes that have ended without removing them."""
    for path in stale(file):
        remove_refused(path)


def stale(file: str) -> Iterator[str]:
    """Find the sockets beside ``file`` of processes that have ended without removing them."""
    for path in paths(file):
        if _runs(process_of(path)):  # most do; connecting would disturb them
            continue
        try:
            connect(path, timeout=0.1).close()
        except ConnectionRefusedError:
            yield path
        except OSError:
            pass  # belongs to another user, or has disappeared


def remove_refused(path: str) -> None:
    """Remove a socket that refused a connection, unless its process is about to listen on it."""
    # The BSDs also refuse connections when the queue is full: listen(2).
    if sys.platform != "linux" and _runs(process_of(path)):
        return
    with contextlib.suppress(OSError):
        found = os.lstat(path)
        starting = abs(time.time() - found.st_mtime) < _STARTING_SECONDS
        if stat.S_ISSOCK(found.st_mode) and not starting:
            os.unlink(path)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:  # the process of another user
        return True
    except (OSError, OverflowError):
        return False
    return True
