"""A copy that is held in the middle, and databases without WAL."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from sa_sqlite_pool.backup import page_copy

ROLLBACK = {"journal_mode": "TRUNCATE"}


class Held:
    """Holds each copy after its first step, where it can be cancelled, until ``leave`` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inside, self.leave = threading.Event(), threading.Event()
        original = page_copy._copy

        def held(source: Any, target: Any, pages: int, worker: Any, step: page_copy.Step) -> None:
            def each(copied: int, total: int) -> None:
                self.inside.set()
                while not self.leave.wait(0.001):
                    worker.between_steps()
                step(copied, total)

            original(source, target, pages, worker, each)

        monkeypatch.setattr(page_copy, "_copy", held)
