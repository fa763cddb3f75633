"""Use of an asyncio engine where no event loop of asyncio runs, with an error that says so."""

from __future__ import annotations

import asyncio

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

_NO_LOOP = (
    "no asyncio event loop is running here, and SQLAlchemy's asyncio extension works with no "
    "other, such as Trio's: let asyncio run the program (uvicorn, hypercorn -k asyncio, "
    'anyio.run(main, backend="asyncio"), the AnyIO backend "asyncio" in tests)'
)


def assert_loop_runs() -> None:
    """Raise ``RuntimeError`` in a coroutine that a library other than asyncio runs."""
    if not _loop_runs():
        raise RuntimeError(_NO_LOOP)


def refuse_without_loop() -> None:
    """Raise MissingGreenlet where SQLAlchemy would: no loop runs, and nothing can be awaited.

    To be called where asyncio has raised ``RuntimeError``: ``create_all(engine.sync_engine)`` at
    the import of a module, or a session in a thread, did not reach SQLAlchemy's own question.
    Where a library other than asyncio runs the coroutine, Trio for example, the error says so; it
    is a ``RuntimeError``, too.
    """
    if _loop_runs():
        return
    if in_greenlet():
        raise RuntimeError(_NO_LOOP)
    await_only(asyncio.sleep(0))


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
