"""Acts of another thread, or of the collector, between any two steps of the interpreter."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, final


@final
class Meanwhile:
    """``with Meanwhile(files, step, act):`` calls ``act()`` before one step of the files' code.

    ``happened`` is true if there was such a step.
    """

    def __init__(self, files: str | tuple[str, ...], step: int, act: Callable[[], object]) -> None:
        self.happened = False
        self._files = (files,) if isinstance(files, str) else files
        self._left = step
        self._act = act
        self._before: Any = None

    def __enter__(self) -> Meanwhile:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and not self.happened:
            if self._left == 0:
                self.happened = True
                self._act()
            self._left -= 1
        return self._trace


def every_step() -> Iterator[tuple[int, Callable[[Meanwhile], None]]]:
    """``for step, note in every_step()``: counts from 0 while ``note()`` reports such a step."""
    going = True

    def note(meanwhile: Meanwhile) -> None:
        nonlocal going
        going = meanwhile.happened

    for step in itertools.count():
        yield step, note
        if not going:
            assert step > 5, "no steps were seen"
            return
