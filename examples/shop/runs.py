"""One engine under load, from the start of its server to the check of its books."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .app import Settings
from .books import Books, check_books
from .processes import LoadClient, Server, ShopError
from .results import LoadResult, Tick
from .schemas import About
from .seed import Seeded
from .stores import EngineKind


@dataclass(frozen=True, slots=True)
class Load:
    """How many customers, for how long, with how many seconds between two requests of each."""

    seconds: float
    pause: float
    readers: int
    writers: int


@dataclass(frozen=True, slots=True)
class Run:
    """What one engine did."""

    engine: EngineKind
    about: About
    load: LoadResult
    stopped: bool
    books: Books

    @property
    def problems(self) -> list[str]:
        """Why the demo fails.

        Stock's errors are its own, so they are shown and not held against the demo; its books
        must balance like the package's.
        """
        found = [f"the books do not balance: {problem}" for problem in self.books.problems]
        if not self.load.requests_per_second:
            found.append("no request was answered")
        if self.engine is EngineKind.SA_SQLITE_POOL:
            found += [f"{self.load.failed:,} requests failed"] if self.load.failed else []
            found += [] if self.stopped else ["the server had to be killed"]
        return [f"{self.engine.value}: {problem}" for problem in found]


def run_engine(
    engine: EngineKind,
    database: Path,
    seeded: Seeded,
    load: Load,
    on_ready: Callable[[str], None],
    on_tick: Callable[[Tick], None],
) -> Run:
    """Serve that database with that engine under load, then check its books.

    `on_ready` is told the server's address, `on_tick` how far the load is.
    Takes about three seconds more than `load.seconds`; ShopError where a process fails outright.
    """
    server = Server(Settings(database, engine), database.with_suffix(".log"))
    try:
        about = server.wait_ready()
        on_ready(server.url)
        result = _visit(server.url, seeded, load, on_tick)
        server.require_running()
    finally:
        stopped = server.stop()
    books = check_books(
        database,
        seeded_orders=seeded.orders,
        acknowledged=result.acknowledged,
        lost_answers=result.failed,
    )
    return Run(engine, about, result, stopped, books)


def _visit(url: str, seeded: Seeded, load: Load, on_tick: Callable[[Tick], None]) -> LoadResult:
    client = LoadClient(
        load.seconds,
        url=url,
        products=seeded.products,
        orders=seeded.orders,
        pause=load.pause,
        readers=load.readers,
        writers=load.writers,
    )
    for message in client.messages():
        if isinstance(message, LoadResult):
            return message
        on_tick(message)
    raise ShopError("the load client ended without a result")
