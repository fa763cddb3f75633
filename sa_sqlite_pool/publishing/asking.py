"""Questions to the processes that publish their statistics of a database."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ..system.proc_locks import process_name
from . import addresses
from .documents import MOST_BYTES, decode
from .peers import peer_of

SECONDS = 1.0
_AT_ONCE = 32
_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What a process has answered: a ``document``, or ``error`` says why there is none."""

    pid: int
    process: str | None
    document: dict[str, Any] | None = None
    error: str | None = None


def ask_all(file: str, timeout: float = SECONDS) -> list[Answer]:
    """Return the answers of the processes that publish ``file``, each within ``timeout`` seconds.

    Sockets at which nothing listens any more are removed.
    """
    if not addresses.supported or not (found := addresses.paths(file)):
        return []
    with ThreadPoolExecutor(min(len(found), _AT_ONCE)) as threads:
        answers = threads.map(lambda path: _ask(path, timeout), found)
        return sorted(filter(None, answers), key=lambda answer: answer.pid)


def _ask(path: str, timeout: float) -> Answer | None:
    give_up = time.monotonic() + timeout
    pid = addresses.process_of(path)
    try:
        with addresses.connect(path, timeout) as connection:
            peer = peer_of(connection)
            pid = peer.pid if peer is not None and peer.pid > 0 else pid
            return _received(pid, _receive(connection, give_up))
    except ConnectionRefusedError:
        addresses.remove_refused(path)
    except FileNotFoundError:
        pass  # closed meanwhile
    except (TimeoutError, BlockingIOError):
        return _failed(pid, f"does not answer within {timeout:g} s")
    except PermissionError:
        return _failed(pid, f"answers only {_owner(path)} and root")
    except OSError as error:
        return _failed(pid, str(error))
    return None


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


def _received(pid: int, received: bytes) -> Answer:
    if not received:
        return _failed(pid, "has closed the connection without an answer")
    try:
        document = decode(received)
    except ValueError as error:  # JSON's own among them
        return _failed(pid, f"answers with something else: {error}")
    error = document.get("error")
    return Answer(
        pid,
        str(document.get("process") or process_name(pid) or "") or None,
        document,
        None if error is None else str(error),
    )


def _failed(pid: int, error: str) -> Answer:
    return Answer(pid, process_name(pid), None, error)


def _owner(path: str) -> str:
    with contextlib.suppress(OSError):
        return f"the user {os.lstat(path).st_uid}"
    return "its own user"
