"""A clock that is stopped, as freezegun does by default in tests of applications."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

THEN = 1_577_836_800.0
"""2020-01-01, the time that all clocks show while stopped, including the monotonic ones."""

_NAMES = ("time", "monotonic", "perf_counter")


def stopped() -> float:
    return THEN


@contextmanager
def stop_clock() -> Iterator[None]:
    """Replace the clocks of the module ``time``, under all names that modules have for them."""
    real = [getattr(time, name) for name in _NAMES]
    with pytest.MonkeyPatch.context() as patch:
        for module in list(sys.modules.values()):
            for name, value in list(vars(module).items()):
                if any(value is one for one in real):
                    patch.setattr(module, name, stopped)
        yield
