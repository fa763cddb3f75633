"""The cost of opening is measured for stock and each door."""

from __future__ import annotations

import re

from benchmarks.opening import CONTENDERS

from .calling import call


def test_every_door_is_measured() -> None:
    """Each door opens an existing file and, if it can create one, a new file, beside stock."""
    done = call("--rounds", "1", module="benchmarks.opening")
    assert done.returncode == 0, done.stderr
    for contender in CONTENDERS:
        row = rf"{contender.name} +│ +a[a-z ]+file +│ +[\d.]+ │ +[\d.]+ │ +[\d.]+ │"
        assert len(re.findall(row, done.stdout)) == 1 + contender.creates
