"""The README's examples work as shown, the web application over real HTTP."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import SQLitePool
from tests.helpers import amounts, create_items

README = Path(__file__).parent.parent / "README.md"


def code_blocks(heading: str) -> list[str]:
    """Return the Python blocks of a section of the README."""
    section = README.read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Serve the README's FastAPI example with uvicorn, in a separate process."""
    (block,) = code_blocks("FastAPI")
    (tmp_path / "notes.py").write_text(block)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "notes:app", "--port", str(port)]
    server = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert server.stdout is not None
        for line in server.stdout:
            if "Uvicorn running" in line:
                break
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        output = server.communicate(timeout=60)[0]
    assert "Traceback" not in output, output
    assert {entry.name for entry in tmp_path.iterdir()} >= {"notes.db"}


def test_the_readme_example(served: str) -> None:
    """It works as shown: the tables exist, and the next request finds a new note."""
    with httpx.Client(base_url=served, timeout=60) as client:
        for number in range(1, 6):
            created = client.post("/notes", params={"text": f"note {number}"})
            assert (created.status_code, created.json()) == (201, number)
            assert client.get(f"/notes/{number}").json() == f"note {number}"
        assert client.get("/notes/99").status_code == 404
        assert len(client.get("/notes").json()) == 5


def printed_by(program: str, directory: Path) -> str:
    (directory / "example.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_the_readme_facade_example(tmp_path: Path) -> None:
    """Of a hundred concurrent deposits, none is lost."""
    block, *_ = code_blocks("The facade: a writer and readers")
    for _ in range(2):  # the program can be run again
        assert printed_by(block, tmp_path) == "1000\n"


def test_the_readme_function(tmp_path: Path) -> None:
    """A withdrawal works as shown, after the hundred deposits."""
    block, function, *_ = code_blocks("The facade: a writer and readers")
    imported, definition, call = function.split("\n\n\n")
    made = f"{imported}\n\n\n{definition}"
    program = block.replace("async def deposit", f"{made}\n\n\nasync def deposit")
    call = f"        {call.strip()}\n        print(balance)\n"
    program = program.replace("        async with db.read()", f"{call}        async with db.read()")
    assert printed_by(program, tmp_path) == "990\n990\n"


def test_the_readme_prepared_read(tmp_path: Path) -> None:
    """After the hundred deposits, the account is read as shown."""
    block, _, prepared, _ = code_blocks("The facade: a writer and readers")
    made, call = prepared.strip().rsplit("\n", 1)
    program = block.replace("async def deposit", f"{made}\n\n\nasync def deposit")
    call = f"        {call}\n        print(row)\n"
    program = program.replace("        async with db.read()", f"{call}        async with db.read()")
    assert printed_by(program, tmp_path) == "(1, 1000)\n1000\n"


def test_the_readme_sessions_over_two_engines(tmp_path: Path) -> None:
    """The engines and their session maker are created as shown."""
    *_, block = code_blocks("The facade: a writer and readers")
    assert printed_by(f"{block}print(Session)\n", tmp_path).startswith("async_sessionmaker(")


def test_the_readme_migrations(tmp_path: Path) -> None:
    """The application of the FastAPI section migrates when it starts, with the shown env.py."""
    pytest.importorskip("alembic")
    (application,) = code_blocks("FastAPI")
    env, lifespan = code_blocks("Migrations")
    imported, definition = lifespan.split("\n\n\n")
    before, rest = application.split("@asynccontextmanager\n")
    after = rest[rest.index("app = FastAPI") :]
    notes = f"{imported}\n{before}{definition}\n\n{after}"
    (tmp_path / "notes.py").write_text(notes)
    alembic = [sys.executable, "-m", "alembic"]
    subprocess.run([*alembic, "init", "migrations"], cwd=tmp_path, check=True, timeout=60)
    ini = (tmp_path / "alembic.ini").read_text()
    url = "sqlalchemy.url = sqlite:///notes.db"
    assert url in README.read_text()
    ini = re.sub(r"^sqlalchemy\.url = .*$", url, ini, flags=re.MULTILINE)
    (tmp_path / "alembic.ini").write_text(ini)
    (tmp_path / "migrations" / "env.py").write_text(env)
    revision = ["revision", "--autogenerate", "-m", "create notes"]
    subprocess.run([*alembic, *revision], cwd=tmp_path, check=True, timeout=60)
    program = """
from fastapi.testclient import TestClient

import notes

with TestClient(notes.app) as client:
    client.post("/notes", params={"text": "milk"})
    print(client.get("/notes").json())
"""
    assert printed_by(program, tmp_path) == "['milk']\n"


@pytest.mark.parametrize("by_import", [False, True])
async def test_the_one_line_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_import: bool
) -> None:
    """The swap-in engine works as shown, and with the other imports without ``poolclass``."""
    monkeypatch.chdir(tmp_path)
    block, imports = code_blocks("One line: the swap-in pool")
    names: dict[str, AsyncEngine] = {}
    if by_import:
        block = imports + block.split("\n", 2)[2].replace(", poolclass=SQLitePool", "")
    exec(block, names)
    assert ("poolclass" in block) is not by_import
    engine = names["engine"]
    try:
        assert isinstance(engine.pool, SQLitePool)
        await create_items(engine)
        assert await amounts(engine) == [0, 0, 0]
    finally:
        await engine.dispose()
    assert (tmp_path / "app.db").exists()
