"""Queries to the processes that publish their statistics of a database."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ..system.clock import time
from ..system.proc_locks import program_of
from . import addresses
from .documents import MOST_BYTES, decode
from .peers import peer_of

SECONDS = 1.0
_AT_ONCE = 32
_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """The response of a process on the socket ``path``.

    :mod:`~.documents` describes ``document``. ``error`` says why it contains no statistics, or why
    there is no document.
    """

    path: str
    pid: int
    process: str | None
    document: dict[str, Any] | None = None
    error: str | None = None

    @property
    def statistics(self) -> dict[str, Any] | None:
        """The statistics of the process, in the form of ``DatabaseStatistics.as_dict()``."""
        found = None if self.document is None else self.document.get("statistics")
        return found if isinstance(found, dict) else None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "pid": self.pid,
            "process": self.process,
            "since": None if self.document is None else self.document.get("since"),
            "error": self.error,
            "statistics": self.statistics,
        }


def ask_all(file: str, timeout: float = SECONDS) -> list[Answer]:
    """Return the responses of all processes that publish ``file``; wait ``timeout`` s for each.

    Sockets on which nothing listens any more are removed.
    """
    if not addresses.supported or not (found := addresses.paths(file)):
        return []
    answers = _answers(found, lambda path: _ask(path, timeout))
    return sorted(filter(None, answers), key=lambda answer: answer.pid)


def _answers(found: list[str], ask: Callable[[str], Answer | None]) -> list[Answer | None]:
    with ThreadPoolExecutor(min(len(found), _AT_ONCE)) as threads:
        try:
            return list(threads.map(ask, found))
        except RuntimeError:  # the system has no more threads: all the more reason to query
            return [ask(path) for path in found]


def _ask(path: str, timeout: float) -> Answer | None:
    give_up = time.monotonic() + timeout
    pid = addresses.process_of(path)
    try:
        with addresses.connect(path, timeout) as connection:
            peer = peer_of(connection)
            pid = peer.pid if peer is not None and peer.pid > 0 else pid
            return _answer(path, pid, _receive(connection, give_up))
    except ConnectionRefusedError:
        addresses.remove_refused(path)
        return None
    except FileNotFoundError:  # closed in the meantime
        return None
    except (TimeoutError, BlockingIOError):
        error = f"does not respond within {timeout:g} s"
    except PermissionError:
        error = f"answers only {_owner(path)} and root"
    except OSError as problem:
        error = f"does not respond: {problem}"
    except ValueError as problem:
        error = f"its response cannot be read: {problem}"
    return Answer(path, pid, program_of(pid), error=error)


def _receive(connection: socket.socket, give_up: float) -> bytes:
    received = bytearray()
    while len(received) <= MOST_BYTES and not received.endswith(b"\n"):
        left = give_up - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        if not (more := connection.recv(_CHUNK_BYTES)):
            break
        received += more
    return bytes(received)


def _answer(path: str, pid: int, received: bytes) -> Answer | None:
    if not received:
        if _is_of_another_user(path):  # whatever the socket's mode is now
            raise PermissionError
        return None  # the socket was being closed
    document = decode(received)
    process, error = document.get("process") or program_of(pid), document.get("error")
    return Answer(
        path,
        pid,
        None if process is None else str(process),
        document,
        None if error is None else str(error),
    )


def _is_of_another_user(path: str) -> bool:
    with contextlib.suppress(OSError):
        return os.geteuid() not in {0, os.lstat(path).st_uid}
    return False


def _owner(path: str) -> str:
    with contextlib.suppress(OSError):
        return f"the user {os.lstat(path).st_uid}"
    return "its own user"
