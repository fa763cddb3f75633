"""The interface of a way of accessing a database."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Protocol

from .engines import Pragmas
from .settings import Settings
from .steps import Operation


class Way(Protocol):
    """An open database, used by any number of tasks concurrently."""

    async def read(self, operation: Operation, key: int) -> None:
        """Run ``operation`` as a read."""

    async def write(self, operation: Operation, key: int) -> None:
        """Run ``operation`` in a transaction, and commit it."""

    async def settings(self, *, writes: bool) -> Settings:
        """Return the settings of the connections for writes, or for reads."""


class SyncWay(Protocol):
    """The same interface without an event loop, for one thread."""

    def read(self, operation: Operation, key: int) -> None:
        """Run ``operation`` as a read."""

    def write(self, operation: Operation, key: int) -> None:
        """Run ``operation`` in a transaction, and commit it."""

    def settings(self) -> Settings:
        """Return the settings of its connections."""


Open = Callable[[Path, Pragmas], AbstractAsyncContextManager[Way]]
OpenSync = Callable[[Path, Pragmas], AbstractContextManager[SyncWay]]
