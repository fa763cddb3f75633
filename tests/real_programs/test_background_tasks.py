"""Sessions that outlive their block or their task: reported at once, and the turn passes on."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sa_sqlite_pool.integrations.fastapi import read_session, write_session

from .doors import FACADE, OURS, STOCK, SWAP_IN, Application, Door, at_once, is_locked

facade = pytest.mark.parametrize("door", [FACADE], indirect=True)


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    what: Mapped[str]


async def opened(door: Door) -> Application:
    app = await door.open()
    async with app.writer.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    return app


class Web:
    """A web application whose endpoint leaves work for after the response."""

    def __init__(self, app: Application, dependency: Any) -> None:
        self.errors: list[BaseException] = []
        self.commits = False
        web = FastAPI()
        writer = Annotated[AsyncSession, dependency]

        async def note(session: Any, tasks: BackgroundTasks) -> str:
            await self.add(session, "note")
            tasks.add_task(self.audit, session)
            return "ok"

        # Set directly: as strings, FastAPI would resolve them in this module.
        note.__annotations__.update(session=writer, tasks=BackgroundTasks)
        web.post("/note")(note)
        self.transport = httpx.ASGITransport(app=web)

    async def add(self, session: AsyncSession, what: str) -> None:
        session.add(Note(what=what))
        await session.flush()

    async def audit(self, session: AsyncSession) -> None:
        try:
            await self.add(session, "audit")
            if self.commits:
                await session.commit()
        except InvalidRequestError as error:
            self.errors.append(error)

    async def post(self) -> int:
        async with httpx.AsyncClient(transport=self.transport, base_url="http://app") as client:
            return (await client.post("/note")).status_code


@pytest.mark.parametrize("door", [STOCK, SWAP_IN], indirect=True)
async def test_a_dependency_of_the_applications_own(door: Door) -> None:
    """If the session's block ends after the background tasks, both rows are present."""
    app = await opened(door)

    async def session() -> Any:
        async with app.session() as session, session.begin():
            yield session

    web = Web(app, Depends(session))
    for _ in range(2):
        assert await asyncio.create_task(web.post()) == 200
    rows = "SELECT what, count(*) FROM notes GROUP BY 1 ORDER BY 1"
    assert await app.rows(rows) == [("audit", 2), ("note", 2)]


@facade
@pytest.mark.parametrize("commits", [False, True])
async def test_a_session_that_has_ended(door: Door, commits: bool) -> None:
    """write_session()'s ends with the endpoint: later use is an error, and the next is served."""
    app = await opened(door)
    web = Web(app, write_session(app.db))
    web.commits = commits
    for count in (1, 2):
        assert await at_once(web.post()) == 200
        assert len(web.errors) == count
        assert not is_locked(app.path)
    assert await app.rows("SELECT what FROM notes") == [("note",), ("note",)]


@facade
@pytest.mark.parametrize("how", ["read", "write"])
async def test_the_sessions_of_the_facade_end_with_their_block(door: Door, how: str) -> None:
    """Any later use raises an error that says so, and acquires nothing."""
    app = await opened(door)
    async with getattr(app.db, how)() as session:
        await session.execute(text("SELECT 1"))
    with pytest.raises(InvalidRequestError):
        await session.execute(text("SELECT 1"))
    with pytest.raises(InvalidRequestError):
        await session.connection()
    with pytest.raises(InvalidRequestError):
        session.add(Note(what="late"))
        await session.flush()
    with pytest.raises(InvalidRequestError):
        async with session.begin():
            await session.execute(text("INSERT INTO notes (what) VALUES ('late')"))
    await session.close()
    assert not is_locked(app.path)
    await at_once(app.write("INSERT INTO notes (what) VALUES ('next')"))
    assert await app.rows("SELECT what FROM notes") == [("next",)]


@facade
async def test_an_ended_reader_of_a_web_application(door: Door) -> None:
    """The same applies to read_session()."""
    app = await opened(door)
    web = Web(app, read_session(app.db))
    seen: list[BaseException] = []

    async def late(session: AsyncSession) -> None:
        try:
            await session.execute(text("SELECT 1"))
        except InvalidRequestError as error:
            seen.append(error)

    async def nothing(*_: Any) -> None:
        pass

    web.add, web.audit = nothing, late  # type: ignore[method-assign, assignment]
    assert await web.post() == 200
    assert len(seen) == 1


async def test_a_session_goes_on_in_another_task(door: Door) -> None:
    """Fixtures are an example, whose first and second half may be two tasks."""
    app = await opened(door)
    session = app.session()

    async def begin() -> None:
        session.add(Note(what="first"))
        await session.flush()

    async def end() -> None:
        session.add(Note(what="second"))
        await session.commit()
        await session.close()

    await asyncio.create_task(begin())
    await asyncio.create_task(end())
    assert await app.value("SELECT count(*) FROM notes") == 2
    await at_once(app.write("INSERT INTO notes (what) VALUES ('third')"))


@pytest.mark.filterwarnings("ignore:The garbage collector", "ignore:Exception ignored")
@pytest.mark.parametrize("door", OURS, indirect=True)
async def test_the_turn_does_not_stay_with_a_task_that_has_ended(door: Door) -> None:
    """A background task that wrote and did not commit keeps no other task from writing."""
    app = await opened(door)

    async def forgets() -> None:
        session = app.session()
        session.add(Note(what="lost"))
        await session.flush()

    await asyncio.create_task(forgets())
    await at_once(app.write("INSERT INTO notes (what) VALUES ('next')"))
    assert await app.rows("SELECT what FROM notes") == [("next",)]
