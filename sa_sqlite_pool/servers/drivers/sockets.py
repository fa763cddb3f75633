"""Whether the server has closed a connection, which drivers notice later than the system does."""

from __future__ import annotations

import select


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
