"""Background tasks that belong to no caller, under any task factory.

``loop.create_task()`` guarantees little. With ``asyncio.eager_task_factory`` the task has run as
far as it can, perhaps to completion, before the call returns; the application's own factory may
return a wrapper. So everything a task needs must be in place before it is started, and the result
is used only as a future: https://docs.python.org/3/library/asyncio-task.html#eager-task-factory
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def start_task(work: Coroutine[Any, Any, T], name: str) -> asyncio.Future[T]:
    """Start a task in the running loop, with an empty context: it inherits nothing from the caller.

    Keep a reference to the result: a loop holds only weak references to its tasks.
    """
    # No name=: newer Pythons pass it on to factories, which may not accept it.
    # https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.create_task
    task = contextvars.Context().run(asyncio.get_running_loop().create_task, work)
    set_name = getattr(task, "set_name", None)
    if set_name is not None:  # else it is a future that is not a task
        set_name(name)
    return task
