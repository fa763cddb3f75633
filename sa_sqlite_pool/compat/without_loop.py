"""Use of an asyncio engine where no asyncio event loop runs, and the error that says so."""

from __future__ import annotations

import asyncio

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

_NO_LOOP = (
    "no asyncio event loop is running here, and SQLAlchemy's asyncio extension does not work with "
    "others, such as Trio's: run the program with asyncio (uvicorn, hypercorn -k asyncio, "
    'anyio.run(main, backend="asyncio"), the AnyIO backend "asyncio" in tests)'
)


def assert_loop_runs() -> None:
    """Raise ``RuntimeError`` in a coroutine run by a library other than asyncio."""
    if not _loop_runs():
        raise RuntimeError(_NO_LOOP)


def refuse_without_loop() -> None:
    """Raise MissingGreenlet where SQLAlchemy would: no loop runs, and nothing can be awaited.

    Call it where asyncio has raised ``RuntimeError``: ``create_all(engine.sync_engine)`` during
    the import of a module, or a session in a thread, did not reach SQLAlchemy's own check.
    If a library other than asyncio, for example Trio, runs the coroutine, this raises a
    ``RuntimeError``, too, which says so.
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
