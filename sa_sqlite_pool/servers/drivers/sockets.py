"""Sockets of connections, beneath their drivers.

Whether the server has closed a connection is noticed by drivers later than by the system.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from typing import Any


def has_hung_up(descriptor: int | None) -> bool:
    """Return whether the other end has closed; False where the system cannot tell.

    An error message of the server may be left to read: "POLLRDHUP: Stream socket peer closed
    connection, or shut down writing half of connection", poll(2).
    """
    if descriptor is None or not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(descriptor, getattr(select, "POLLRDHUP", 0))  # POLLHUP always is
    return bool(poll.poll(0))


def shut_down(descriptor: int) -> None:
    """End a connection for both sides; what uses the socket, or waits for it, gets an error."""
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)


def socket_of(connection: Any) -> int | None:
    """Return the descriptor of the socket of asyncpg's connection; None without one."""
    transport = getattr(connection, "_transport", None)
    found = None if transport is None else transport.get_extra_info("socket")
    return None if found is None else int(found.fileno())
