"""Serve the shop on this machine only: `python -m examples.shop.server --port 8000`."""

from __future__ import annotations

from typing import Annotated

import typer
import uvicorn

GRACE_SECONDS = 5
# Longer than the load client keeps an idle connection (15 s): the one that closes first must be the
# one that knows, or a request meets a connection already closed.
KEEP_ALIVE_SECONDS = 30


def serve(port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 8000) -> None:
    """Run one worker until SIGTERM or SIGINT."""
    uvicorn.run(
        "examples.shop.app:create_app",
        factory=True,
        host="127.0.0.1",
        port=port,
        access_log=False,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


if __name__ == "__main__":
    typer.run(serve)
