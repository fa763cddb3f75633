"""Processes that never rest, of the same priority: what else is done on a machine that is full."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_COMMAND = (sys.executable, "-I", "-c", "print(flush=True)\nwhile True: pass")


@contextmanager
def beside(processes: int) -> Iterator[None]:
    """Run the block beside so many of them, on the cores that the calling thread may use."""
    with ExitStack() as until_end:
        for _ in range(processes):
            one = until_end.enter_context(subprocess.Popen(_COMMAND, stdout=subprocess.PIPE))
            until_end.callback(one.kill)
            assert one.stdout is not None
            one.stdout.readline()  # what it takes to start is not measured
        yield
