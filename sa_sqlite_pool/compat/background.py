"""Background tasks that belong to no caller, under any task factory.

``loop.create_task()`` promises little. With ``asyncio.eager_task_factory`` the task has run as far
as it can, perhaps to its end, before the call returns; a factory of the application may return a
wrapper of its own. So all that a task needs must be in place before it is started, and the result
is used as a future only: https://docs.python.org/3/library/asyncio-task.html#eager-task-factory
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def start_task(work: Coroutine[Any, Any, T], name: str) -> asyncio.Future[T]:
    """Start a task in the running loop, with an empty context: it inherits nothing of the caller.

    Keep a reference to the result: a loop refers to its tasks weakly.
    """
    # No name=: newer Pythons pass it on to factories, which need not accept it.
    # https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.create_task
    task = contextvars.Context().run(asyncio.get_running_loop().create_task, work)
    set_name = getattr(task, "set_name", None)
    if set_name is not None:  # or it is a future, but no task
        set_name(name)
    return task
