"""FastAPI: the README's application as shown, over real HTTP; and when the session ends."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.integrations.fastapi import lifespan, read_session, write_session
from tests.helpers import Item, create_items, turn_of

README = Path(__file__).parent.parent / "README.md"


def code_blocks(heading: str) -> list[str]:
    """The Python blocks of a section of the README."""
    section = README.read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The README's FastAPI example behind uvicorn, in a process of its own."""
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
        output = server.communicate(timeout=20)[0]
    assert "Traceback" not in output, output
    assert {entry.name for entry in tmp_path.iterdir()} >= {"notes.db"}


def test_the_readme_example(served: str) -> None:
    """As shown: the schema, a note, and it is there in the next request."""
    with httpx.Client(base_url=served) as client:
        assert client.put("/schema").status_code == 200
        for number in range(1, 6):
            created = client.post("/notes", params={"text": f"note {number}"})
            assert (created.status_code, created.json()) == (201, number)
            assert client.get(f"/notes/{number}").json() == f"note {number}"
        assert client.get("/notes/99").status_code == 404
        assert len(client.get("/notes").json()) == 5


def test_the_readme_facade_example(tmp_path: Path) -> None:
    """A hundred deposits at once, and none is lost."""
    block, _ = code_blocks("The facade: a writer and readers")
    (tmp_path / "example.py").write_text(block)
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "1000\n"


@pytest.fixture
async def client(db: SQLiteDatabase, path: Path) -> AsyncIterator[httpx.AsyncClient]:
    await create_items(db.writer_engine)
    app = FastAPI()
    writer, reader = write_session(db), read_session(db)

    @app.post("/items/{item_id}")
    async def add(item_id: int, session: AsyncSession = writer) -> None:
        session.add(Item(id=item_id))
        await session.flush()
        if item_id == 13:
            raise HTTPException(409)

    @app.get("/stream")
    async def stream(session: AsyncSession = reader) -> StreamingResponse:
        await session.scalars(select(Item))

        async def body() -> AsyncIterator[str]:
            yield f"{db.reader_engine.pool.checkedout()} "  # type: ignore[attr-defined]
            yield f"{turn_of(path).holder}"

        return StreamingResponse(body())

    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def test_the_answer_comes_after_the_commit(
    client: httpx.AsyncClient, db: SQLiteDatabase
) -> None:
    """Who has the answer finds the row."""
    assert (await client.post("/items/10")).status_code == 200
    async with db.read() as session:
        assert await session.get(Item, 10) is not None


async def test_an_http_error_rolls_back(client: httpx.AsyncClient, db: SQLiteDatabase) -> None:
    """HTTPException is an exception."""
    assert (await client.post("/items/13")).status_code == 409
    async with db.read() as session:
        assert await session.get(Item, 13) is None


async def test_a_streaming_response_holds_no_connection(client: httpx.AsyncClient) -> None:
    """The session has ended when the body begins."""
    assert (await client.get("/stream")).text == "0 None"


async def test_the_lifespan_opens_and_closes(path: Path) -> None:
    """FastAPI(lifespan=lifespan(db))"""
    db = SQLiteDatabase(path)
    async with lifespan(db)(FastAPI()):
        assert "open" in repr(db)
    assert "closed" in repr(db)
