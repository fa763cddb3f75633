"""Synchronous use of an asyncio engine where no event loop runs, in SQLAlchemy's words."""

from __future__ import annotations

import asyncio

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet


def refuse_without_loop() -> None:
    """Raise MissingGreenlet where SQLAlchemy would: no loop runs, and nothing can be awaited.

    To be called where asyncio has raised ``RuntimeError``: ``create_all(engine.sync_engine)`` at
    the import of a module, or a session in a thread, did not reach SQLAlchemy's own question.
    """
    if not in_greenlet() and not _loop_runs():
        await_only(asyncio.sleep(0))


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
