"""A headless Chromium, driven over its DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/. A library for it would install a browser, or a
Node program, and a version of greenlet; these tests need only ten of its commands.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 60
# It sends no requests on its own; no sandbox, because that needs privileges that containers lack.
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)


def chromium() -> str | None:
    """Return the program that ``$CHROMIUM`` names, or one on the path."""
    found = (shutil.which(name) for name in (os.environ.get("CHROMIUM", ""), *NAMES) if name)
    return next((path for path in found if path is not None), None)


class Tab:
    """A page in the browser, and its messages."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(timeout=SECONDS))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self.events.append(answer)

    def open(self, url: str) -> None:
        """Leave the previous page, whose server may have stopped, and open this one."""
        self.send("Page.navigate", url="about:blank")
        self.until("location.href === 'about:blank'")
        self.events.clear()
        self.send("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression in the page; a promise is awaited."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until an expression is true; while a page is loading, none is."""
        give_up = time.monotonic() + SECONDS
        look = f"""new Promise((done) => {{
            const until = performance.now() + 1000;
            const holds = () => {{
                try {{ return {condition}; }} catch {{ return false; }}
            }};
            const look = () => {{
                if (holds()) done(true);
                else if (performance.now() > until) done(false);
                else setTimeout(look, 20);
            }};
            look();
        }})"""
        while not self.evaluate(look):
            assert time.monotonic() < give_up, f"it never came to hold: {condition}"

    def text(self, selector: str) -> str:
        return str(self.evaluate(f"document.querySelector({selector!r})?.innerText ?? ''"))

    def click(self, selector: str) -> None:
        """Scroll an element into view, and click in its middle with the mouse."""
        box = self.evaluate(f"""(() => {{
            const found = document.querySelector({selector!r});
            found.scrollIntoView({{ block: "center" }});
            const box = found.getBoundingClientRect();
            return [box.x + Math.min(40, box.width / 2), box.y + box.height / 2];
        }})()""")
        place = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, **place)

    def press(self, key: str, text: str = "") -> None:
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, text=text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)

    def show(self, *, width: int, height: int, dark: bool = False) -> None:
        """Set the width and height of the screen, and a light or dark theme."""
        phone = width < 500
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        """Write the whole page to a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        answer = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def complaints(self) -> list[str]:
        """Return console errors and warnings, exceptions, and violations of the page's policy."""
        found = []
        for event in self.events:
            name, parameters = event["method"], event["params"]
            if name == "Runtime.exceptionThrown" or (
                (name == "Runtime.consoleAPICalled" and parameters["type"] in {"error", "warning"})
                or (name == "Log.entryAdded" and parameters["entry"]["level"] != "verbose")
            ):
                found.append(json.dumps(parameters))
        return found

    def requested(self) -> list[str]:
        """Return the addresses of all requests."""
        return [
            str(event["params"]["request"]["url"])
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]


@contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """Provide a tab of a new browser, which ends with the block."""
    program = chromium()
    assert program is not None
    command = [program, *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = _port(profile / "DevToolsActivePort", process)
        with httpx.Client(trust_env=False, timeout=SECONDS) as client:
            tabs = client.get(f"http://127.0.0.1:{port}/json/list").json()
        address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        with connect(address, max_size=None, proxy=None, ping_interval=None) as socket:
            yield Tab(socket)
    finally:
        process.terminate()
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port(written: Path, process: subprocess.Popen[bytes]) -> int:
    give_up = time.monotonic() + SECONDS
    while True:
        if written.exists() and (lines := written.read_text().splitlines()):
            return int(lines[0])
        assert time.monotonic() < give_up, "Chromium did not start"
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert process.wait(timeout=0.05) is None, "Chromium has ended"
