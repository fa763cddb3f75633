"""The processes as seen by their parent."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

_ROOT = Path(__file__).parent.parent.parent
_LAST_WORDS_SECONDS = 20


class Child:
    """One process, which works as long as its standard input is open."""

    def __init__(self, database: Path, journal: Path, seed: str) -> None:
        self.journal = journal
        self._errors = journal.with_suffix(".errors")
        arguments = [str(database), str(journal), seed]
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.checkpoints.process", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=_ROOT,
            )

    def until_ready(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            self.end()

    def check(self) -> None:
        """Check that it is at work."""
        if self._process.poll() is not None:
            self.end()
            raise AssertionError(f"{self.journal.stem} ended by itself")

    def dismiss(self) -> None:
        """Tell it to stop; it ends when its tasks are done and its database is closed."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def end(self) -> dict[str, int]:
        """Wait for it to end, and return its counts. Raise if it reported any problem."""
        assert self._process.stdout is not None
        self.dismiss()
        said = self._process.stdout.read()
        self._process.stdout.close()
        code, errors = self._process.wait(), self._errors.read_text()
        assert code == 0, f"{self.journal.stem} ended with {code}:\n{errors}"
        assert not errors, f"{self.journal.stem} had to say:\n{errors}"
        counts: dict[str, int] = json.loads(said.removeprefix("ready\n"))
        return counts

    def kill(self) -> None:
        """Kill it at once, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def tell_where(self) -> None:
        """Make it exit and print the stacks of everything that hangs."""
        self._process.send_signal(signal.SIGTERM)

    def ended_within(self, seconds: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.poll() is not None


class GiveUp:
    """Ends all children after a number of seconds, so no wait for them is unbounded."""

    def __init__(self, seconds: float, children: Iterable[Child]) -> None:
        self._children = children
        self.happened = False
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        self.happened = True
        children = list(self._children)
        for child in children:
            child.tell_where()
        last = time.monotonic() + _LAST_WORDS_SECONDS
        for child in children:
            if not child.ended_within(max(0.0, last - time.monotonic())):
                child.kill()
