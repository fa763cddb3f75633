"""One shop under load, from the start of its server to the check of its books."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from .app import LIVE_PATH, Settings
from .books import Books
from .load import WARM_UP_S
from .processes import LoadClient, Server, ShopError
from .results import LoadResult, Tick
from .schemas import About, Reads
from .seed import Seeded


@dataclass(frozen=True, slots=True)
class Load:
    """How many customers, for how long, with how many seconds between two requests of each.

    With `own_orders` they look at an order of theirs as soon as it is placed.
    """

    seconds: float
    pause: float
    readers: int
    writers: int
    own_orders: bool = False


@dataclass(frozen=True, slots=True)
class Contender:
    """What serves the shop in a run.

    `audit` checks the books afterwards. Without `may_fail` a failed request is a problem, and with
    `must_find` a customer who does not find an order.
    """

    name: str
    settings: Settings
    log: Path
    load: Load
    audit: Callable[[LoadResult], Books]
    may_fail: bool = False
    must_find: bool = True


@dataclass(frozen=True, slots=True)
class Run:
    """What a contender did."""

    contender: Contender
    about: About
    load: LoadResult
    reads: Reads
    stopped: bool
    books: Books

    @property
    def name(self) -> str:
        """The contender's."""
        return self.contender.name

    @property
    def problems(self) -> list[str]:
        """Why the demo fails.

        Errors of a contender that may fail are its own, so they are shown and not held against the
        demo; its books must balance like the others'.
        """
        found = [f"the books do not balance: {problem}" for problem in self.books.problems]
        if not self.load.requests_per_second:
            found.append("no request was answered")
        if not self.contender.may_fail:
            found += [f"{self.load.failed:,} requests failed"] if self.load.failed else []
            found += [] if self.stopped else ["the server had to be killed"]
        if self.contender.must_find and self.load.own_orders.not_found:
            found.append(f"{self.load.own_orders.not_found:,} customers did not find their order")
        return [f"{self.name}: {problem}" for problem in found]


def run_all(console: Console, seeded: Seeded, contenders: Iterable[Contender]) -> list[Run]:
    """One after the other, with a bar for each of them."""
    columns = (TextColumn("{task.description:<25}"), BarColumn(), TimeElapsedColumn())
    counted = TextColumn("{task.fields[requests]:,} requests")
    with Progress(*columns, counted, console=console) as progress:
        return [_run_with_bar(progress, one, seeded) for one in contenders]


def _run_with_bar(progress: Progress, contender: Contender, seeded: Seeded) -> Run:
    total = WARM_UP_S + contender.load.seconds
    task = progress.add_task(contender.name, total=total, requests=0)

    def on_ready(url: str) -> None:
        if contender.settings.has_live_page:
            progress.console.print(f"its live page: {url}{LIVE_PATH}/", highlight=False)

    def on_tick(tick: Tick) -> None:
        progress.update(task, completed=tick.elapsed_s, requests=tick.requests)

    return run(contender, seeded, on_ready, on_tick)


def run(
    contender: Contender,
    seeded: Seeded,
    on_ready: Callable[[str], None],
    on_tick: Callable[[Tick], None],
) -> Run:
    """Serve the shop under load, then check its books.

    `on_ready` is told the server's address, `on_tick` how far the load is.
    Takes about three seconds more than the load; ShopError where a process fails outright.
    """
    server = Server(contender.settings, contender.log)
    try:
        about = server.wait_ready()
        on_ready(server.url)
        result = _visit(server.url, seeded, contender.load, on_tick)
        server.require_running()
        reads = server.reads()
    finally:
        stopped = server.stop()
    return Run(contender, about, result, reads, stopped, contender.audit(result))


def _visit(url: str, seeded: Seeded, load: Load, on_tick: Callable[[Tick], None]) -> LoadResult:
    client = LoadClient(
        load.seconds,
        *(["--own-orders"] if load.own_orders else []),
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
