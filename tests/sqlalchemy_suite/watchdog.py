"""The end of a process whose test hangs, with the stacks that show where it waits."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from greenlet import greenlet

EXIT_CODE = 70
GRACE_S = 10.0
"""The time for the thread's output. A test may hang in C while it holds the interpreter lock."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End the process after ``seconds``, and print the stacks of threads, greenlets and tasks."""
    timer = threading.Timer(seconds, _end_process, [seconds])
    timer.daemon = True
    timer.start()
    faulthandler.dump_traceback_later(seconds + GRACE_S, file=2, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        timer.cancel()


def _end_process(seconds: float) -> None:
    output = sys.__stderr__
    assert output is not None
    print(f"\nstill running after {seconds} s", file=output, flush=True)
    faulthandler.dump_traceback(file=output, all_threads=True)
    # SQLAlchemy runs the test in a greenlet, which is on no thread's stack while it waits.
    for candidate in gc.get_objects():
        if isinstance(candidate, greenlet) and candidate.gr_frame is not None:
            print(f"\nwaiting greenlet {candidate!r}:", file=output)
            traceback.print_stack(candidate.gr_frame, file=output)
        elif isinstance(candidate, asyncio.Task) and not candidate.done():
            candidate.print_stack(file=output)
    output.flush()
    os._exit(EXIT_CODE)
