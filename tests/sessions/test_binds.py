"""``bind``, ``binds`` and similar arguments have the same effect as in a stock session.

Each program runs in a stock session and in a routed one; both must use the same engines for the
same statements. Only the default engine has two names here, ``writer`` and ``reader``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, ForeignKey, delete, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError, PendingRollbackError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_sqlite_pool import ConfigurationError, RoutedSession, SQLitePool, routing_sessionmaker
from tests.sessions.beside import Heard


class Base(DeclarativeBase):
    pass


class Entry(Base):
    __tablename__ = "entries"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(default="entry")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "entry"}  # noqa: RUF012


class Special(Entry):
    """Single-table inheritance."""

    __mapper_args__ = {"polymorphic_identity": "special"}  # noqa: RUF012


class Joined(Entry):
    """Joined-table inheritance."""

    __tablename__ = "joined"
    id: Mapped[int] = mapped_column(ForeignKey("entries.id"), primary_key=True)
    more: Mapped[int] = mapped_column(default=0)
    __mapper_args__ = {"polymorphic_identity": "joined"}  # noqa: RUF012


class Audited:
    """A mixin that is not mapped."""


class Log(Audited, Base):
    __tablename__ = "log"
    id: Mapped[int] = mapped_column(primary_key=True)


class Engines:
    """Two engines on the default database, one on another, and the statements sent to them."""

    def __init__(self, writer: AsyncEngine, reader: AsyncEngine, other: AsyncEngine) -> None:
        self.writer, self.reader, self.other = writer, reader, other
        self.heard = Heard().watch(default=writer, reader=reader, other=other)

    def stock(self, **kw: Any) -> Any:
        return async_sessionmaker(self.writer, expire_on_commit=False, **kw)

    def routed(self, **kw: Any) -> Any:
        return routing_sessionmaker(writer=self.writer, reader=self.reader, **kw)

    def sent(self) -> list[str]:
        """Return the statements since the last call, counting the reader's as the default's."""
        statements = [line for line in self.heard if line.split()[1].isupper()]
        self.heard.clear()
        return [line.replace("reader:", "default:") for line in statements]


@pytest.fixture
async def engines(writer: AsyncEngine, reader: AsyncEngine, path: Path) -> AsyncIterator[Engines]:
    url = f"sqlite+aiosqlite:///{path.with_name('other.db')}"
    other = create_async_engine(url, poolclass=SQLitePool)
    for engine in (writer, other):
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
    yield Engines(writer, reader, other)
    await other.dispose()


BINDS: dict[str, Callable[[Engines], dict[Any, AsyncEngine]]] = {
    "none": lambda e: {},
    "a class": lambda e: {Log: e.other},
    "the base of all": lambda e: {Base: e.other},
    "a base, and a class back": lambda e: {Base: e.other, Log: e.writer},
    "a mixin": lambda e: {Audited: e.other},
    "a class with inheritance": lambda e: {Entry: e.other},
    "a subclass": lambda e: {Special: e.other},
    "a joined subclass": lambda e: {Joined: e.other},
    "a table": lambda e: {Log.__table__: e.other},
    "the table of a base": lambda e: {Entry.__table__: e.other},
    "the writer, by name": lambda e: {Log: e.writer},
}


async def flush(session: AsyncSession, cls: type) -> None:
    session.add(cls())
    await session.flush()


STEPS: dict[str, Callable[[AsyncSession, type], Awaitable[object]]] = {
    "select": lambda s, c: s.scalars(select(c)),
    "get": lambda s, c: s.get(c, 1),
    "select the table": lambda s, c: s.execute(select(c.__table__)),  # type: ignore[attr-defined]
    "count": lambda s, c: s.scalar(select(func.count()).select_from(c)),
    "text": lambda s, c: s.execute(text("SELECT 1")),
    "text with a mapper": lambda s, c: s.execute(text("SELECT 1"), bind_arguments={"mapper": c}),
    "text with a table": lambda s, c: s.execute(
        text("SELECT 1"),
        bind_arguments={"clause": c.__table__},  # type: ignore[attr-defined]
    ),
    "flush": flush,
    "insert": lambda s, c: s.execute(insert(c), [{"id": 51}, {"id": 52}]),
    "update": lambda s, c: s.execute(
        update(c).where(c.id == 5).values(id=5),  # type: ignore[attr-defined]
        execution_options={"synchronize_session": False},
    ),
    "delete": lambda s, c: s.execute(delete(c.__table__)),  # type: ignore[attr-defined]
    "bulk": lambda s, c: s.run_sync(lambda sync: sync.bulk_insert_mappings(c, [{"id": 61}])),
    "select again": lambda s, c: s.scalars(select(c)),
    "connection of a mapper": lambda s, c: s.connection({"mapper": c}),
}


async def run(session: AsyncSession, engines: Engines) -> dict[str, list[str]]:
    sent = {}
    async with session:
        for cls in (Log, Entry, Special, Joined):
            for name, step in STEPS.items():
                await step(session, cls)
                sent[f"{name} of {cls.__name__}"] = engines.sent()
                await session.rollback()
    return sent


@pytest.mark.parametrize("name", BINDS)
async def test_binds_are_as_in_a_stock_session(engines: Engines, name: str) -> None:
    """They match statement by statement, for each class, with all kinds of keys."""
    binds = BINDS[name](engines)
    expected = await run(engines.stock(binds=binds)(), engines)
    assert any("other" in sent[0] for sent in expected.values() if sent) == (
        engines.other in binds.values()
    )
    assert await run(engines.routed(binds=binds)(), engines) == expected


@pytest.mark.parametrize("name", BINDS)
async def test_bind_mapper_and_bind_table(engines: Engines, name: str) -> None:
    """The same binds, set after the session was created."""

    def bound(session: AsyncSession) -> AsyncSession:
        for key, engine in BINDS[name](engines).items():
            if isinstance(key, type):
                session.sync_session.bind_mapper(key, engine.sync_engine)
            else:
                session.sync_session.bind_table(key, engine.sync_engine)
        return session

    expected = await run(bound(engines.stock()()), engines)
    assert await run(bound(engines.routed()()), engines) == expected


async def test_a_class_bound_to_the_writer_is_read_there(engines: Engines) -> None:
    """An engine given by name is not routed, unlike the default; the reader receives nothing."""
    async with engines.routed(binds={Log: engines.writer})() as session:
        await session.scalars(select(Log))
        assert engines.heard.of("reader") == []
        await session.rollback()
        await session.scalars(select(Entry))
        assert "SELECT" in engines.heard.of("reader")


@pytest.mark.parametrize("role", ["auto", "writer", "reader"])
async def test_a_session_bound_to_another_engine(engines: Engines, role: str) -> None:
    """It replaces writer and reader, whatever the role."""
    assert engines.routed()(bind=engines.other, role=role).bind is engines.other
    expected = await run(engines.stock()(bind=engines.other), engines)
    assert await run(engines.routed()(bind=engines.other, role=role), engines) == expected


@pytest.mark.parametrize("role", ["auto", "writer", "reader"])
@pytest.mark.parametrize(
    "mode", ["conditional_savepoint", "rollback_only", "control_fully", "create_savepoint"]
)
@pytest.mark.parametrize("own", [True, False])
async def test_a_session_bound_to_a_connection(
    engines: Engines, role: str, mode: str, own: bool
) -> None:
    """It may belong to the writer or another database, as in test suites that roll back."""

    count = select(func.count()).select_from(Log)

    async def program(maker: Any, **kw: Any) -> tuple[list[str], int]:
        engine = engines.writer if own else engines.other
        async with engine.connect() as connection:
            outer = await connection.begin()
            async with maker(bind=connection, join_transaction_mode=mode, **kw) as session:
                before = await session.scalar(count)
                await session.scalars(select(Log).with_for_update())
                async with session.begin_nested():
                    session.add(Log())
                await session.commit()
                added = await session.scalar(count) - before
            if outer.is_active:
                await outer.rollback()
        return engines.sent(), added

    expected = await program(engines.stock())
    assert await program(engines.routed(), role=role) == expected
    assert not any(line.startswith("reader") for line in engines.heard)


async def test_a_bind_that_is_set_later(engines: Engines) -> None:
    """This is ``session.bind = connection`` of the synchronous session."""
    async with engines.routed()() as session, engines.other.connect() as connection:
        session.sync_session.bind = connection.sync_connection
        await session.scalars(select(Log))
        session.add(Log())
        await session.flush()
        assert engines.sent() == ["other: SELECT", "other: INSERT"]


async def test_the_bind_of_a_statement(engines: Engines) -> None:
    """It may be the reader or the writer by name, or another database, before and after a write."""
    async with engines.routed()() as session:

        async def ask(engine: Engine) -> str:
            await session.execute(select(Log), bind_arguments={"bind": engine})
            return engines.heard[-1]

        writer, reader = engines.writer.sync_engine, engines.reader.sync_engine
        assert await ask(engines.other.sync_engine) == "other: SELECT"
        assert await ask(reader) == "reader: SELECT"
        assert (await session.scalars(select(Log))).all() == []
        assert engines.heard[-1] == "reader: SELECT"
        assert await ask(writer) == "default: SELECT"
        await session.scalars(select(Log))
        assert engines.heard[-1] == "default: SELECT"
        assert await ask(reader) == "reader: SELECT"
        assert await ask(engines.other.sync_engine) == "other: SELECT"


async def test_a_write_with_a_bind_is_seen_by_what_follows(engines: Engines) -> None:
    """Even if the writer was named, an auto session sees its own writes."""
    async with engines.routed()() as session:
        await session.scalars(select(Log))
        await session.execute(
            insert(Log).values(id=7), bind_arguments={"bind": engines.writer.sync_engine}
        )
        assert list(await session.scalars(select(Log.id))) == [7]


async def test_a_flush_elsewhere_that_failed_stops_reads_here(engines: Engines) -> None:
    """As in a stock session, its savepoint must be rolled back first."""
    for maker in (engines.stock, engines.routed):
        async with maker(binds={Log: engines.other})() as session:
            session.add(Log(id=1))
            await session.flush()
            nested = await session.begin_nested()
            session.add(Log(id=1))
            with pytest.raises(IntegrityError):
                await session.flush()
            with pytest.raises(PendingRollbackError):
                await session.scalars(select(Entry))
            await nested.rollback()
            assert (await session.scalars(select(Entry))).all() == []


async def test_one_engine_for_both_is_not_routed(engines: Engines) -> None:
    """A development machine with one database uses one connection per session, as on stock."""
    maker = routing_sessionmaker(writer=engines.other, reader=engines.other)
    async with maker() as session:
        await session.scalars(select(Log))
        session.add(Log())
        await session.flush()
        await session.scalars(select(Log))
        await session.commit()
        assert len((await session.scalars(select(Log))).all()) == 1
    assert engines.heard.of("other").count("begin") == 2
    assert engines.heard.of("other").count("commit") == 1


async def test_two_phase_commits_are_refused(engines: Engines) -> None:
    """The maker, a session and the synchronous one refuse them at once, with the way out."""
    with pytest.raises(ConfigurationError, match="use a stock async_sessionmaker"):
        engines.routed(twophase=True)
    with pytest.raises(ConfigurationError, match="twophase"):
        engines.routed()(twophase=True)
    with pytest.raises(ConfigurationError, match="twophase"):
        RoutedSession(
            writer=engines.writer.sync_engine, reader=engines.reader.sync_engine, twophase=True
        )
    engines.routed(twophase=False)()


async def test_a_synchronous_session_by_itself(engines: Engines) -> None:
    """``RoutedSession`` accepts either kind of engine, and is otherwise a normal Session."""
    for writer, reader in (
        (engines.writer, engines.reader),
        (engines.writer.sync_engine, engines.reader.sync_engine),
    ):
        session = RoutedSession(writer=writer, reader=reader, info={"a": 1})
        assert isinstance(session, Session)
        assert session.info == {"a": 1}
        assert session.get_bind() is engines.writer.sync_engine
        session.close()
