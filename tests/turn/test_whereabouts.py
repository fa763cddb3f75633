"""Where the application asked."""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec
from typing import Any

import pytest
from sqlalchemy.util import greenlet_spawn

from sa_sqlite_pool.compat.greenlets import greenlet_spawn as reused_spawn
from sa_sqlite_pool.turn.fair_semaphore import FairSemaphore
from sa_sqlite_pool.turn.permit import Permit
from sa_sqlite_pool.turn.whereabouts import Caller, caller, whereabouts
from tests.helpers import until_waiting


@pytest.mark.parametrize(
    ("file", "module", "expected"),
    [
        ("<string>", "__main__", "<string>:2"),
        ("<string>", "sqlalchemy.orm.session", "test_whereabouts.py:"),
        ("<sqlalchemy generated connect>", "sqlalchemy.orm.session", "test_whereabouts.py:"),
    ],
)
def test_code_without_a_file(file: str, module: str, expected: str) -> None:
    """What ``python -c`` runs is named, and what SQLAlchemy generates is not."""
    names: dict[str, Any] = {"__name__": module, "caller": caller}
    exec(compile("def ask():\n    return caller()", file, "exec"), names)
    asked = names["ask"]()
    assert isinstance(asked, Caller)
    assert str(asked).startswith(expected)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("/srv/users/__init__.py", "users/__init__.py:2"),
        ("/srv/users/__main__.py", "users/__main__.py:2"),
        ("/srv/users/jobs.py", "jobs.py:2"),
        ("__init__.py", "__init__.py:2"),
    ],
)
def test_a_file_that_each_package_has(file: str, expected: str) -> None:
    """It is told with its package, as libraries of one file are: whose ``__init__.py`` it is."""
    names: dict[str, Any] = {"caller": caller}
    exec(compile("def ask():\n    return caller()", file, "exec"), names)
    assert str(names["ask"]()) == expected


@pytest.mark.parametrize("folder", ["sqlalchemy", "asyncio", "greenlet", "sa_sqlite_pool"])
async def test_a_folder_of_the_application_that_has_the_name_of_a_library(folder: str) -> None:
    """Its lines are the application's, as repositories in "adapters/sqlalchemy/" are."""
    space: dict[str, Any] = {"__name__": f"adapters.{folder}.jobs", "caller": caller}
    source = "async def work(event): await event.wait()\ndef ask(): return caller()"
    exec(compile(source, f"/srv/adapters/{folder}/jobs.py", "exec"), space)
    task = asyncio.create_task(space["work"](asyncio.Event()))
    await asyncio.sleep(0)
    assert (whereabouts(task), str(space["ask"]())) == ("jobs.py:1", "jobs.py:2")
    task.cancel()


@pytest.mark.parametrize(
    ("name", "program", "expected"),
    [
        ("__main__", None, "app.py:1"),
        ("__main__", "my_app.__main__", "app.py:1"),
        ("__main__", "asyncio.__main__", None),
        ("asyncio.app", None, None),
    ],
)
async def test_the_line_of_a_program(name: str, program: str | None, expected: str | None) -> None:
    """``python app.py`` and ``python -m my_app`` are the application; ``-m asyncio`` is not."""
    space: dict[str, Any] = {"__name__": name, "__spec__": program and ModuleSpec(program, None)}
    file = f"/srv/asyncio/{name}/{program}/app.py"  # what is known of a file is kept
    exec(compile("async def work(event): await event.wait()", file, "exec"), space)
    task = asyncio.create_task(space["work"](asyncio.Event()))
    await asyncio.sleep(0)
    assert whereabouts(task) == expected
    task.cancel()


async def ask(line: FairSemaphore) -> Permit:
    permit = await line.acquire(None)
    assert permit is not None
    return permit


@pytest.mark.parametrize("waits", [False, True])
async def test_a_permit_knows_who_asked(waits: bool) -> None:
    """The line that asked, and the tasks that its holder has started."""
    line = FairSemaphore()
    told: list[str] = []

    async def child() -> None:
        assert await line.acquire(0.0) is None
        told.append(line.describe_holders())

    async def hold() -> Permit:
        permit = await ask(line)
        await asyncio.create_task(child())
        return permit

    before = await ask(line) if waits else None
    holding = asyncio.create_task(hold())
    if before is not None:
        await until_waiting(1, line)
        line.release(before)
    permit = await holding
    assert str(permit.asked_at).startswith("test_whereabouts.py:")
    assert (
        "started under it: if the holder waits for this task, neither can go on; let it" in told[0]
    )
    line.release(permit)


SERVER = "async def serve(endpoint): await endpoint()"


@pytest.mark.parametrize(
    ("file", "known"),
    [
        ("/venv/lib/site-packages/uvicorn/h11_impl.py", None),
        ("/home/me/uvicorn/my_server.py", "my_server.py:1"),
        ("/venv/lib/site-packages/my_app/uvicorn.py", "uvicorn.py:1"),
    ],
)
async def test_a_server_is_no_line_of_the_application(file: str, known: str | None) -> None:
    """A commit after the endpoint, say: the line that asked says more than the server's."""
    space: dict[str, Any] = {}
    exec(compile(SERVER, file, "exec"), space)
    task = asyncio.create_task(space["serve"](asyncio.Event().wait))
    await asyncio.sleep(0)
    assert whereabouts(task) == known
    task.cancel()


async def test_a_library_that_the_application_calls_is_not_where_it_is() -> None:
    """An HTTP client, say: the line of the application that called it says more."""
    space: dict[str, Any] = {}
    exec(compile(SERVER, "/venv/lib/site-packages/httpx/_client.py", "exec"), space)

    async def endpoint() -> None:
        await space["serve"](asyncio.Event().wait)

    task = asyncio.create_task(endpoint())
    await asyncio.sleep(0)
    assert whereabouts(task) == line_of(endpoint)
    task.cancel()


async def test_a_coroutine_that_does_not_tell_its_line() -> None:
    """As those that Cython compiles: the line of the function says enough."""

    async def endpoint() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(endpoint())
    await asyncio.sleep(0)
    expected = f"test_whereabouts.py:{endpoint.__code__.co_firstlineno}"
    endpoint.__code__ = endpoint.__code__.replace(co_linetable=b"")
    compiled = asyncio.create_task(endpoint())
    await asyncio.sleep(0)
    assert whereabouts(compiled) == expected != whereabouts(task)
    task.cancel()
    compiled.cancel()


async def test_where_a_task_is_that_blocks_its_event_loop() -> None:
    """Asked in another thread: the line that blocks, not that of the server that called it."""
    space: dict[str, Any] = {}
    exec(compile(SERVER, "/venv/lib/site-packages/uvicorn/h11_impl.py", "exec"), space)

    async def endpoint() -> None:
        task = asyncio.current_task()
        places.append(thread.submit(whereabouts, task).result())

    places: list[str | None] = []
    with ThreadPoolExecutor(1) as thread:
        await asyncio.create_task(space["serve"](endpoint))
    assert places == [line_of(endpoint)]


def line_of(function: Any) -> str:
    """The place of the last line of ``function``."""
    lines, start = inspect.getsourcelines(function)
    return f"test_whereabouts.py:{start + len(lines) - 1}"


@pytest.mark.parametrize("spawn", [greenlet_spawn, reused_spawn])
async def test_who_asks_in_a_greenlet(spawn: Any) -> None:
    """The line in the coroutine; a function of the application's that runs in there comes first."""
    asked: list[object] = []

    space: dict[str, Any] = {"__name__": "sqlalchemy.made_up"}
    space |= {"asked": asked, "caller": caller, "spawn": spawn}
    # As in a file of SQLAlchemy's: `work` asks, `run_sync` has a function of the application run.
    source = (
        "def work(): asked.append(caller())\n"
        "async def execute(): await spawn(work)\n"
        "async def run_sync(function): await spawn(function, work)\n"
    )
    exec(compile(source, "/site-packages/sqlalchemy/made_up.py", "exec"), space)

    async def executes() -> None:
        await space["execute"]()

    def in_greenlet(work: Any) -> None:
        work()

    async def runs_sync() -> None:
        await space["run_sync"](in_greenlet)

    async def spawns() -> None:
        await spawn(in_greenlet, space["work"])

    for program in (executes, runs_sync, spawns):
        await program()
    assert [str(one) for one in asked] == [
        line_of(executes),
        line_of(in_greenlet),
        line_of(in_greenlet),
    ]
