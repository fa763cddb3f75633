"""Use of an asyncio engine where no event loop of asyncio runs, in SQLAlchemy's words or ours."""

from __future__ import annotations

import asyncio

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet


def refuse_without_loop() -> None:
    """Raise MissingGreenlet where SQLAlchemy would: no loop runs, and nothing can be awaited.

    To be called where asyncio has raised ``RuntimeError``: ``create_all(engine.sync_engine)`` at
    the import of a module, or a session in a thread, did not reach SQLAlchemy's own question.
    Where something else than asyncio runs the coroutine, Trio for example, say so: a
    ``RuntimeError`` as before.
    """
    if _loop_runs():
        return
    if in_greenlet():
        raise RuntimeError(
            "no event loop of asyncio runs here, and SQLAlchemy's asyncio extension works on no "
            "other, Trio's for example: let asyncio run the program (uvicorn, hypercorn -k "
            'asyncio, anyio.run(main, backend="asyncio"), the AnyIO backend "asyncio" in tests)'
        )
    await_only(asyncio.sleep(0))


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
