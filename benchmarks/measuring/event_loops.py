"""The event loop under all contenders: asyncio's own, or uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from importlib import import_module
from importlib.metadata import version
from typing import Any, Protocol, TypeVar, cast

import typer

T = TypeVar("T")


class RunLoop(Protocol):
    """``asyncio.run``, or a function that does the same on another loop."""

    def __call__(self, main: Coroutine[Any, Any, T], /) -> T: ...


def run_loop(*, uvloop: bool) -> RunLoop:
    """Return the runner; raise :class:`typer.BadParameter` if uvloop is requested but missing."""
    if not uvloop:
        return asyncio.run
    try:
        return cast("RunLoop", import_module("uvloop").run)
    except ModuleNotFoundError:
        raise typer.BadParameter(
            "uvloop is not installed: `pip install uvloop`, or leave --uvloop out"
        ) from None


def named(*, uvloop: bool) -> str:
    """Return the name of the loop and its version; asyncio's version is Python's."""
    return f"uvloop {version('uvloop')}" if uvloop else "asyncio"
