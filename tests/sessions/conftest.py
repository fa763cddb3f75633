"""The two engines of a routed session: on SQLite, and for general promises on PostgreSQL, too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import ReaderPool, ServerDatabase, WriterPool, routing_sessionmaker
from tests.conftest import MakeEngine
from tests.helpers import create_items
from tests.postgresql import App, Cluster, cluster, new_database
from tests.sessions.beside import Heard, Maker

__all__ = ["cluster"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test of the two engines on both databases, unless it is marked as ``sqlite``'s own."""
    if "database" in metafunc.fixturenames:
        alone = metafunc.definition.get_closest_marker("sqlite") is not None
        metafunc.parametrize("database", ["sqlite"] if alone else ["sqlite", "postgresql"])


@pytest.fixture(scope="session")
def server(cluster: Cluster) -> Iterator[App]:
    """Create a database on the primary."""
    yield from new_database(cluster, "asyncpg")


@pytest.fixture
def server_url(server: App) -> URL:
    """Return the URL of that database."""
    return server.url()


@pytest.fixture
async def engines(
    request: pytest.FixtureRequest, database: str, make_engine: MakeEngine
) -> AsyncIterator[tuple[AsyncEngine, AsyncEngine]]:
    """Yield the writer and the reader."""
    if database == "sqlite":
        yield make_engine(WriterPool), make_engine(ReaderPool)
        return
    app: App = request.getfixturevalue("server")
    app.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    db = ServerDatabase(app.url(), read_timeout=0.5, write_timeout=5)
    yield db.writer_engine, db.reader_engine
    await db.close()


@pytest.fixture
def writer(engines: tuple[AsyncEngine, AsyncEngine]) -> AsyncEngine:
    return engines[0]


@pytest.fixture
def reader(engines: tuple[AsyncEngine, AsyncEngine]) -> AsyncEngine:
    return engines[1]


@pytest.fixture
async def maker(writer: AsyncEngine, reader: AsyncEngine) -> Maker:
    """Return a maker of routed sessions over both engines, with some rows."""
    await create_items(writer)
    return routing_sessionmaker(writer=writer, reader=reader)


@pytest.fixture
def heard(maker: Maker, writer: AsyncEngine, reader: AsyncEngine) -> Heard:
    """Record the statements that either engine executes from now on."""
    return Heard().watch(writer=writer, reader=reader)
