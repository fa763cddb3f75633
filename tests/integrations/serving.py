"""A real uvicorn, and a client that reads server-sent events."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn


@dataclass(frozen=True)
class Event:
    """A server-sent event."""

    kind: str
    id: str
    data: dict[str, Any]

    @property
    def now(self) -> dict[str, Any]:
        """The state of the only database."""
        (one,) = self.data["databases"]
        return dict(one["now"])

    @property
    def points(self) -> list[dict[str, Any]]:
        """The points of the only database."""
        (one,) = self.data["databases"]
        return [dict(zip(self.data["columns"], point, strict=True)) for point in one["points"]]


async def events(response: httpx.Response) -> AsyncIterator[Event]:
    """https://html.spec.whatwg.org/multipage/server-sent-events.html"""
    found: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            found[name] = value
        elif "data" in found:
            kind, data = found.get("event", "message"), json.loads(found["data"])
            yield Event(kind, found.get("id", ""), data)
            found = {}


class _Server(uvicorn.Server):
    """A server that reports when it accepts requests."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.answers = asyncio.Event()

    async def startup(self, *arguments: Any, **options: Any) -> None:
        await super().startup(*arguments, **options)
        if self.started:
            self.answers.set()


class Server:
    """uvicorn in this loop, as ``uvicorn.run()`` runs it in a separate process."""

    def __init__(self, app: Any, port: int = 0, **options: Any) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(app, log_level="error", ws="none", **options)
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def started(self) -> None:
        """Wait until it accepts requests; raise the error if it cannot start."""
        answers = asyncio.create_task(self._server.answers.wait())
        await asyncio.wait({answers, self._serving}, return_when=asyncio.FIRST_COMPLETED)
        answers.cancel()
        if self._serving.done():
            self._serving.result()

    async def stop(self, *, seconds: float = 10) -> None:
        """Request its exit, as SIGTERM does, and wait until it has exited."""
        self._server.should_exit = True
        await asyncio.wait_for(self._serving, seconds)


@asynccontextmanager
async def serve(app: Any, **options: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Server]]:
    """Provide a client of a server that runs the application."""
    server = Server(app, **options)
    try:
        await server.started()
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=30) as client:
            yield client, server
    finally:
        await server.stop()
