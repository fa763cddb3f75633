"""What is closed when the interpreter exits."""

from __future__ import annotations

import pytest

from sa_sqlite_pool.system import exits
from sa_sqlite_pool.system.forks import rest
from sa_sqlite_pool.system.weak_objects import WeakObjects


class Thing:
    def __init__(self, said: list[str], name: str, error: Exception | None = None) -> None:
        self._said, self._name, self._error = said, name, error

    def close_at_exit(self) -> None:
        self._said.append(self._name)
        if self._error is not None:
            raise self._error


def test_an_error_keeps_no_other_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers are closed first, each object is closed, and the error is not lost."""
    monkeypatch.setattr(exits, "_readers", WeakObjects())
    monkeypatch.setattr(exits, "_writers", WeakObjects())
    said: list[str] = []
    things = [
        (Thing(said, "writer", OSError("broken")), False),
        (Thing(said, "writer"), False),
        (Thing(said, "reader", OSError("broken")), True),
        (Thing(said, "reader"), True),
    ]
    for thing, reads in things:
        exits.close_at_exit(thing, reads=reads)
    try:
        with pytest.raises(OSError, match="broken"):
            exits._close_all()
    finally:
        rest.end_pause()
    assert said == ["reader", "reader", "writer", "writer"]
