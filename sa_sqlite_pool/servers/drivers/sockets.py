"""Sockets of connections, beneath their drivers.

When the server closes a connection, the drivers notice it later than the system does.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from typing import Any


def has_hung_up(descriptor: int | None) -> bool:
    """Return whether the peer has closed the connection; False where the system cannot tell.

    An error message of the server may still be unread: "POLLRDHUP: Stream socket peer closed
    connection, or shut down writing half of connection", poll(2).
    """
    if descriptor is None or not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(descriptor, getattr(select, "POLLRDHUP", 0))  # POLLHUP always is
    return bool(poll.poll(0))


def shut_down(descriptor: int) -> None:
    """Shut a connection down for both sides; whatever uses or awaits the socket gets an error."""
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)


def socket_of(connection: Any) -> int | None:
    """Return the descriptor of an asyncpg connection's socket; None if it has none."""
    transport = getattr(connection, "_transport", None)
    found = None if transport is None else transport.get_extra_info("socket")
    return None if found is None else int(found.fileno())
