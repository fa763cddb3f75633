"""Busy processes of the same priority, like the other load on a fully used machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_COMMAND = (sys.executable, "-I", "-c", "print(flush=True)\nwhile True: pass")


@contextmanager
def beside(processes: int) -> Iterator[None]:
    """Run the block beside ``processes`` of them, on the cores that the calling thread may use."""
    with ExitStack() as until_end:
        for _ in range(processes):
            one = until_end.enter_context(subprocess.Popen(_COMMAND, stdout=subprocess.PIPE))
            until_end.callback(one.kill)
            assert one.stdout is not None
            one.stdout.readline()  # its start is not measured
        yield
