"""What a way of getting at a database is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Protocol

from .engines import Pragmas
from .settings import Settings
from .steps import Operation


class Way(Protocol):
    """An open database; any number of tasks use it at once."""

    async def read(self, operation: Operation, key: int) -> None:
        """Do ``operation``, as who only reads does it."""

    async def write(self, operation: Operation, key: int) -> None:
        """Do ``operation`` in a transaction, and commit it."""

    async def settings(self, *, writes: bool) -> Settings:
        """What the connections of those who write run with, or of those who read."""


class SyncWay(Protocol):
    """The same without an event loop, for one thread."""

    def read(self, operation: Operation, key: int) -> None:
        """Do ``operation``, as who only reads does it."""

    def write(self, operation: Operation, key: int) -> None:
        """Do ``operation`` in a transaction, and commit it."""

    def settings(self) -> Settings:
        """What its connections run with."""


Open = Callable[[Path, Pragmas], AbstractAsyncContextManager[Way]]
OpenSync = Callable[[Path, Pragmas], AbstractContextManager[SyncWay]]
