"""Fixture: the log records of the package."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.reporting.records import Records


@pytest.fixture
def records() -> Iterator[Records]:
    with Records() as kept:
        yield kept
