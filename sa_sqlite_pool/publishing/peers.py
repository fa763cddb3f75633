"""The process at the other end of a local socket, where the system reports it."""

from __future__ import annotations

import os
import socket
import struct
from typing import NamedTuple

_UCRED = struct.Struct("3i")  # pid, uid and gid: unix(7)


class Peer(NamedTuple):
    """The process ``pid`` (0 if it is in another container) of the user ``uid``."""

    pid: int
    uid: int

    @property
    def may_ask(self) -> bool:
        """Whether the process belongs to this user or root."""
        return self.uid in {0, os.geteuid()}


def peer_of(connection: socket.socket) -> Peer | None:
    """Return the process at the other end; None where the system does not report it."""
    option: int | None = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, option, _UCRED.size))
    return Peer(pid, uid)
