"""Prometheus: the content of a scrape, over HTTP and parsed by Prometheus' own parser."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from sa_sqlite_pool import ConfigurationError, SQLiteDatabase, WriteTimeout
from sa_sqlite_pool.stats.database import DatabaseStatistics
from sa_sqlite_pool.stats.figures import FIGURES
from sa_sqlite_pool.stats.lines import TurnStatistics, Waits
from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, create_items, turn_of, until_waiting

pytest.importorskip("prometheus_client")

import prometheus_client
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families

from sa_sqlite_pool.integrations import prometheus

Labels = dict[str, str]


class Scraped(dict[str, list[tuple[Labels, float]]]):
    """The samples of a scrape, by their names."""

    def __init__(self, exposition: str) -> None:
        for family in text_string_to_metric_families(exposition):
            for sample in family.samples:
                self.setdefault(sample.name, []).append((dict(sample.labels), sample.value))

    def value(self, name: str, **labels: str) -> float:
        (found,) = [
            value
            for given, value in self[f"sa_sqlite_pool_{name}"]
            if labels.items() <= given.items()
        ]
        return found


class Server:
    """prometheus_client's own HTTP server, in a separate thread."""

    def __init__(self) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        self._server, self._thread = prometheus_client.start_http_server(
            0, "127.0.0.1", self.registry
        )
        self.url = f"http://127.0.0.1:{self._server.server_port}/metrics"

    async def text(self, accept: str = "text/plain") -> str:
        request = urllib.request.Request(self.url, headers={"Accept": accept})
        return await asyncio.to_thread(lambda: urllib.request.urlopen(request).read().decode())

    async def scrape(self) -> Scraped:
        return Scraped(await self.text())

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()
    yield served
    served.close()


async def update(db: SQLiteDatabase) -> None:
    async with db.write() as session:
        await session.execute(UPDATE_FIRST)


async def test_a_scrape_tells_who_holds_the_turn_and_who_waits(
    db: SQLiteDatabase, server: Server, path: Path
) -> None:
    """Two tasks wait for a third: gauges show it, and later a histogram and counters do."""
    prometheus.register(db, server.registry)
    await create_items(db.writer_engine)
    before = await server.scrape()
    assert before.value("turn_waiting") == 0
    assert before.value("turn_held_seconds") == 0
    async with db.write() as session:
        await session.execute(UPDATE_FIRST)
        waiting = [asyncio.create_task(update(db)) for _ in range(2)]
        await until_waiting(2, turn_of(path))
        during = await server.scrape()
    await asyncio.gather(*waiting)
    after = await server.scrape()
    assert during.value("turn_waiting", database="app.db") == 2
    assert during.value("turn_held_seconds") > 0
    assert during.value("connections", role="writer", state="on_loan") == 1
    for name in (
        "connections_waiting",
        "connections_wait_seconds_sum",
    ):  # the turn counts for the writer
        assert [labels["role"] for labels, _ in during[f"sa_sqlite_pool_{name}"]] == ["reader"]
    assert after.value("turn_wait_seconds_count") == 2
    assert after.value("turn_wait_seconds_bucket", le="+Inf") == 2
    assert after.value("turn_wait_seconds_sum") > 0
    assert after.value("turn_requests_total", outcome="waited") == 2
    assert after.value("transactions_total", role="writer", outcome="commit") >= 4


async def test_statements_connections_and_functions_are_counted(
    db: SQLiteDatabase, server: Server
) -> None:
    """The test reads on a reader, causes an error, and calls one function of each kind."""
    prometheus.register(db, server.registry)
    await create_items(db.writer_engine)
    before = await server.scrape()
    async with db.read() as session:
        await session.execute(text("SELECT count(*) FROM items"))
    with pytest.raises(Exception, match="no such table"):
        async with db.read() as session:
            await session.execute(text("SELECT 1 FROM nowhere"))
    await db.run_read(lambda session: session.execute(text("SELECT 1")).all())

    def write(session: Session) -> None:
        session.execute(UPDATE_FIRST)

    await db.run_write(write)
    after = await server.scrape()

    def grown(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    ran = [grown("statements_total", role="reader", placement=one) for one in ("inline", "thread")]
    assert sum(ran) == 2
    assert grown("statements_failed_total", role="reader") == 1
    assert grown("statements_duration_seconds_total", role="reader") > 0
    assert grown("functions_total", kind="read") == grown("functions_total", kind="write") == 1
    assert grown("connections_checkouts_total", role="reader") == 3
    assert after.value("connections_max", role="reader") == 4
    assert after.value("wal_size_bytes") > 0
    assert after.value("wal_limit_bytes") > after.value("wal_soft_limit_bytes") > 0


async def test_a_wait_in_vain_is_told_apart(path: Path, server: Server) -> None:
    """A time-out does not count as a wait that was served."""
    async with SQLiteDatabase(path, write_timeout=0.01) as db:
        prometheus.register(db, server.registry)
        await create_items(db.writer_engine)
        async with db.write() as session:
            await session.execute(UPDATE_FIRST)
            with pytest.raises(WriteTimeout):
                await asyncio.create_task(update(db))
        scraped = await server.scrape()
        assert scraped.value("turn_requests_total", outcome="timed_out") == 1
        assert scraped.value("turn_requests_total", outcome="waited") == 0
        assert scraped.value("turn_wait_seconds_count") == 1


async def test_several_databases_are_told_apart(
    db: SQLiteDatabase, server: Server, tmp_path: Path
) -> None:
    """Each metric has one family, with a sample for each database."""
    (tmp_path / "other").mkdir()
    async with SQLiteDatabase(tmp_path / "other" / "app.db", readers=7) as other:
        prometheus.register(db, server.registry)
        with pytest.raises(ConfigurationError, match="registered already: pass a different name="):
            prometheus.register(other, server.registry)
        prometheus.register(other, server.registry, name="other")
        exposition = await server.text()
        scraped = Scraped(exposition)
        assert scraped.value("connections_max", role="reader", database="app.db") == 4
        assert scraped.value("connections_max", role="reader", database="other") == 7
        assert exposition.count("# TYPE sa_sqlite_pool_turn_waiting gauge") == 1


async def test_a_database_is_registered_once(db: SQLiteDatabase, server: Server) -> None:
    """Its metrics would be counted twice, under any name, as would those of its engines."""
    prometheus.register(db, server.registry)
    for again in (db, db.writer_engine):
        with pytest.raises(
            ConfigurationError, match=r"registered already; unregister\(\) it first"
        ):
            prometheus.register(again, server.registry, name="other")
    prometheus.unregister(db, server.registry)
    prometheus.register(db.writer_engine, server.registry)
    prometheus.register(db.reader_engine, server.registry, name="readers")
    assert (await server.scrape()).value("connections_max", role="writer", database="app.db") == 1


@pytest.mark.parametrize("other", ["app.db", None, URL.create("sqlite")], ids=repr)
def test_what_is_no_database_is_refused(server: Server, other: Any) -> None:
    with pytest.raises(ConfigurationError, match="cannot be monitored: give a SQLiteDatabase"):
        prometheus.register(other, server.registry)


async def test_a_database_that_is_not_open_exports_nothing(path: Path, server: Server) -> None:
    """It exports nothing before and afterwards; the scrape succeeds, and the name is free again."""
    db = SQLiteDatabase(path)
    prometheus.register(db, server.registry)
    assert "sa_sqlite_pool_turn_waiting" not in await server.scrape()
    assert not path.exists()
    async with db:
        assert "sa_sqlite_pool_turn_waiting" in await server.scrape()
    assert "sa_sqlite_pool_turn_waiting" not in await server.scrape()
    async with SQLiteDatabase(path) as successor:
        prometheus.register(successor, server.registry)
        assert (await server.scrape()).value("turn_waiting") == 0


async def test_opened_again_it_is_exported_again(path: Path, server: Server) -> None:
    """Another database may be registered meanwhile; one that was garbage collected is forgotten."""
    db = SQLiteDatabase(path)
    prometheus.register(db, server.registry)
    prometheus.register(SQLiteDatabase(path.with_name("lost.db")), server.registry)
    async with db:
        pass
    gc.collect()
    async with SQLiteDatabase(path.with_name("other.db")) as other, db:
        prometheus.register(other, server.registry)
        scraped = await server.scrape()
        for name in ("app.db", "other.db"):
            assert scraped.value("turn_waiting", database=name) == 0
        prometheus.register(db, server.registry)
    collector = prometheus._collectors[server.registry]
    assert [source.name for source in collector._sources] == ["app.db", "other.db"]


async def test_registered_where_it_is_opened(path: Path, server: Server) -> None:
    """In a lifespan that runs again, before or after opening: its metrics are there once."""
    db = SQLiteDatabase(path)
    for _ in range(2):
        prometheus.register(db, server.registry, name="own")
        async with db:
            for _ in range(2):
                prometheus.register(db, server.registry, name="own")
            exposition = await server.text()
            assert exposition.count('sa_sqlite_pool_turn_waiting{database="own"}') == 1
    prometheus.unregister(db, server.registry)
    assert server.registry not in prometheus._collectors


async def test_engines_of_ones_own(swap_in: AsyncEngine, server: Server, path: Path) -> None:
    """They are exported from the first connection on; an earlier scrape does not open one."""
    prometheus.register(swap_in, server.registry)
    assert "sa_sqlite_pool_turn_waiting" not in await server.scrape()
    assert not path.exists()
    await create_items(swap_in)
    scraped = await server.scrape()
    assert scraped.value("connections", role="auto", state="at_rest", database="app.db") == 1
    assert scraped.value("connections_max", role="auto") == 15
    await swap_in.dispose()
    again = await server.scrape()
    assert again.value("connections", role="auto", state="at_rest") == 0
    assert again.value("transactions_total", role="auto", outcome="commit") >= 1


async def test_other_pools_are_refused(make_engine: MakeEngine, server: Server) -> None:
    """They are refused before anything is registered."""
    with pytest.raises(ConfigurationError, match="poolclass=SQLitePool"):
        prometheus.register(make_engine(), server.registry)
    assert await server.text() == ""


async def test_unregister(db: SQLiteDatabase, swap_in: AsyncEngine, server: Server) -> None:
    """An unregistered database is missing in the next scrape, and may be registered again."""
    prometheus.register(db, server.registry)
    prometheus.register(swap_in, server.registry, name="swap-in")
    await create_items(swap_in)
    prometheus.unregister(db, server.registry)
    databases = {
        labels["database"] for labels, _ in (await server.scrape())["sa_sqlite_pool_turn_waiting"]
    }
    assert databases == {"swap-in"}
    prometheus.unregister(swap_in, server.registry)
    prometheus.unregister(swap_in, server.registry)
    assert await server.text() == ""
    prometheus.register(db, server.registry)
    assert (await server.scrape()).value("turn_waiting") == 0


async def test_a_scrape_opens_nothing_but_the_log(db: SQLiteDatabase, server: Server) -> None:
    """It opens no connection and runs no statement; it reads only the log's size and header."""
    prometheus.register(db, server.registry)
    await create_items(db.writer_engine)
    prometheus_client.generate_latest(server.registry)
    opened: list[str] = []
    watching = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event in {"open", "sqlite3.connect"}:
            opened.append(str(arguments[0]))

    sys.addaudithook(hook)
    before = db.statistics()
    opened.clear()
    prometheus_client.generate_latest(server.registry)
    watching = False
    done = db.statistics() - before
    assert {Path(name).name for name in opened} <= {"app.db-wal", "locks"}
    assert [engine.statements.runs for engine in done.engines] == [0, 0]
    assert [engine.connections.checkouts for engine in done.engines] == [0, 0]


async def test_the_format_that_prometheus_asks_for(
    db: SQLiteDatabase, server: Server, swap_in: AsyncEngine
) -> None:
    """It is OpenMetrics, whose parser is strict about names, buckets and the order of samples."""
    prometheus.register(db, server.registry)
    prometheus.register(swap_in, server.registry, name="swap-in")
    await create_items(swap_in)
    exposition = await server.text("application/openmetrics-text; version=1.0.0")
    assert exposition.endswith("# EOF\n")
    families = {family.name: family for family in openmetrics(exposition)}  # type: ignore[no-untyped-call]
    assert families["sa_sqlite_pool_turn_wait_seconds"].type == "histogram"
    assert families["sa_sqlite_pool_transactions"].type == "counter"
    assert len(families) == len(FIGURES)


async def test_a_scrape_while_the_loop_is_blocked(db: SQLiteDatabase, server: Server) -> None:
    """The scrape does not wait, and sees the tasks that the loop delays."""
    prometheus.register(db, server.registry)
    await create_items(db.writer_engine)
    async with db.write() as session:
        await session.execute(UPDATE_FIRST)
        url = server.url
        with ThreadPoolExecutor(1) as thread:
            scraped = thread.submit(lambda: urllib.request.urlopen(url).read().decode()).result()
    assert Scraped(scraped).value("turn_held_seconds") > 0


async def test_no_label_has_unbounded_values(db: SQLiteDatabase, server: Server) -> None:
    """The number of samples does not depend on the number of texts and tasks."""
    prometheus.register(db, server.registry)
    await create_items(db.writer_engine)
    names = []
    for number in range(3):
        async with db.read() as session:
            await session.execute(text(f"SELECT {number} FROM items"))
            exposition = await server.text()
            names.append({line.rpartition(" ")[0] for line in exposition.splitlines()})
    assert names[0] == names[1] == names[2]
    assert "SELECT" not in exposition
    assert "Task-" not in exposition


@pytest.mark.skipif(sys.platform != "linux", reason="needs names that are any bytes")
async def test_a_name_that_is_not_utf_8(tmp_path: Path, server: Server) -> None:
    """Its bytes are escaped, and all metrics of other collectors are exported, too."""
    prometheus_client.Gauge("others", "of the application", registry=server.registry)
    db = SQLiteDatabase(Path(os.fsdecode(bytes(tmp_path) + b'/b\xff"\n.db')))
    prometheus.register(db, server.registry)
    async with db:
        found = await server.scrape()
    assert found["others"] == [({}, 0)]
    assert found.value("turn_waiting", database='b\\udcff"\n.db') == 0


def test_every_name_and_help_is_well_formed() -> None:
    """Base units, and `_total` for counters only: https://prometheus.io/docs/practices/naming/"""
    names = [prometheus.metric_name(figure) for figure in FIGURES]
    assert len(set(names)) == len(names)
    for figure, name in zip(FIGURES, names, strict=True):
        assert name.startswith("sa_sqlite_pool_")
        assert name.replace("_", "a").isalnum()
        assert not name.endswith(("_total", "_count", "_sum", "_bucket", "_ms", "_info"))
        assert name.endswith("_seconds") is (figure.unit == "s")
        assert name.endswith("_bytes") is (figure.unit == "By")
        assert not figure.meaning.endswith(".")


def test_buckets_add_up() -> None:
    """Prometheus' buckets count all waits up to their bound; the last one is the total."""
    figure = next(one for one in FIGURES if one.name == "turn.wait")
    waits = Waits(waited=6, seconds=20.5, histogram=(1, 0, 2, 0, 0, 0, 0, 0, 0, 3))
    family = prometheus._family(figure)
    ((_, value),) = figure.read(DatabaseStatistics(name="a", turn=TurnStatistics(waits=waits)))
    prometheus._add(family, ["a"], value)
    buckets = [s.value for s in family.samples if s.name.endswith("_bucket")]
    assert buckets == [1, 1, 3, 3, 3, 3, 3, 3, 3, 6]
    assert {s.name[-6:]: s.value for s in family.samples[-2:]} == {"_count": 6, "ds_sum": 20.5}
