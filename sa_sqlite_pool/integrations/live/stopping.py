"""The shutdown of the server, which ASGI tells an application only after its last response."""

from __future__ import annotations

import signal


def server_is_stopping() -> bool:
    """Return True if uvicorn runs in this process and has been asked to exit.

    uvicorn waits for all responses before it sends ``lifespan.shutdown``, so an endless one must
    look by itself. Its handler of SIGTERM is a method of its ``Server``, and ``should_exit`` of
    that is what ends it, also without a signal. In another server a stream ends by its own limit.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", False) is True
