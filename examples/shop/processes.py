"""The server and the load client, each in a process of its own, each ended by its own handle."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .app import Settings
from .results import LoadResult, Tick, from_line
from .schemas import About, Reads

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
START_S = 30.0
STOP_S = 10.0
LOAD_EXTRA_S = 30.0
OK = 200


class ShopError(Exception):
    """The demo itself could not run."""


class Server:
    """One running server."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.port = _free_port()
        self._log = log
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "examples.shop.server", "--port", str(self.port)],
                cwd=ROOT,
                env=os.environ | settings.to_environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.port}"

    def wait_ready(self) -> About:
        """Wait until /health answers; what runs there. ShopError after 30 s or an early end."""
        deadline = time.monotonic() + START_S
        while self._get("/health") is None:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ShopError(f"the server did not start:\n{self._log.read_text()}")
            time.sleep(0.05)
        about = self._get("/about")
        if about is None:
            raise ShopError(f"the server does not say what it is:\n{self._log.read_text()}")
        return About.model_validate_json(about)

    def reads(self) -> Reads:
        """Which servers it has read from."""
        return Reads.model_validate_json(self._get("/reads") or "{}")

    def require_running(self) -> None:
        """ShopError where it has ended although nobody asked it to."""
        code = self._process.poll()
        if code is not None:
            raise ShopError(f"the server ended under load, code {code}:\n{self._log.read_text()}")

    def stop(self) -> bool:
        """End it by SIGTERM; whether it ended by itself within 10 s. Killed where it did not."""
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return False
        return True

    def _get(self, path: str) -> bytes | None:
        """The body of a 200; `http.client` asks no proxy."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=START_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.read() if response.status == OK else None
        except OSError:
            return None
        finally:
            connection.close()


class LoadClient:
    """One run of `examples.shop.load`."""

    def __init__(self, seconds: float, *flags: str, **options: str | float) -> None:
        arguments = [*flags, *(f"--{name}={value}" for name, value in options.items())]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "examples.shop.load", f"--seconds={seconds}", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._limit_s = seconds + LOAD_EXTRA_S

    def messages(self) -> Iterator[Tick | LoadResult]:
        """Its lines as they come; the process has ended when they have."""
        with _killed_after(self._limit_s, self._process):
            yield from map(from_line, self._process.stdout or ())


@contextmanager
def _killed_after(seconds: float, process: subprocess.Popen[str]) -> Iterator[None]:
    """No run outlives its time, nor the block: a driver that gives up leaves nobody behind."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
