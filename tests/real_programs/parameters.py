"""Parameters of tests, of which `make test` runs the first ones, and `make test-cases` all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def first(count: int, values: Iterable[Any], ids: Iterable[str] | None = None) -> list[Any]:
    """Return all of them as parameters, marking those after the first ``count`` as long."""
    values = list(values)
    names = [str(value) for value in values] if ids is None else list(ids)
    return [
        pytest.param(
            *(value if isinstance(value, tuple) else (value,)),
            id=name,
            marks=[] if number < count else pytest.mark.long,
        )
        for number, (value, name) in enumerate(zip(values, names, strict=True))
    ]
