"""The customers: many at once, in a process of their own, each with a pause between requests.

Prints one JSON line a tick, and the result as the last one.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from random import Random
from typing import Annotated, Any

import aiohttp
import typer

from .catalogue import search_prefix
from .results import Acknowledged, Latencies, LoadResult, OwnOrders, Tick, to_line

WARM_UP_S = 1.0  # connections open and caches fill; its errors and orders count, its times do not
DRAIN_S = 15.0  # how long the last requests may take after the end
TICK_S = 0.25
LAST_PAGE = 200
OK, CREATED, NOT_FOUND, CONFLICT = 200, 201, 404, 409
LEGAL = {"GET": (OK,), "POST": (CREATED, CONFLICT)}
PAUSE_AFTER_ERROR_S = 0.05
REASON_BYTES = 200


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, for how long; times are `time.perf_counter()` seconds.

    With `own_orders` customers look at an order of theirs as soon as it is placed, and at no other
    new one: of somebody else's order they may know nothing yet.
    """

    url: str
    products: int
    seeded_orders: int
    pause_s: float  # on average
    measure_from: float
    ends_at: float
    own_orders: bool = False

    @property
    def over(self) -> bool:
        """Whether to start no further request."""
        return time.perf_counter() >= self.ends_at


@dataclass(slots=True)
class Recorder:
    """What the customers saw so far."""

    plan: Plan
    waits_ms: dict[str, list[float]] = field(default_factory=lambda: {"GET": [], "POST": []})
    in_time: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    acknowledged: list[Acknowledged] = field(default_factory=list)
    out_of_stock: int = 0
    looks: int = 0
    not_found: int = 0

    def answered(self, method: str, started: float) -> None:
        """Take the time of a request with a legal answer."""
        now = time.perf_counter()
        if started >= self.plan.measure_from:
            self.waits_ms[method].append((now - started) * 1_000)
            self.in_time[method] += now <= self.plan.ends_at

    def result(self, client_cpu_share: float) -> LoadResult:
        """Everything, summarised."""
        return LoadResult(
            reads=self._latencies("GET"),
            writes=self._latencies("POST"),
            out_of_stock=self.out_of_stock,
            errors=dict(self.errors),
            acknowledged=tuple(self.acknowledged),
            own_orders=OwnOrders(self.looks, self.not_found),
            client_cpu_share=client_cpu_share,
        )

    def _latencies(self, method: str) -> Latencies:
        seconds = self.plan.ends_at - self.plan.measure_from
        return Latencies.of(self.waits_ms[method], per_second=self.in_time[method] / seconds)


class Customer:
    """One client: one request after the other, chosen by its own random numbers."""

    def __init__(self, name: str, http: aiohttp.ClientSession, recorder: Recorder) -> None:
        self.name = name
        self.random = Random(name)
        self.http = http
        self.recorder = recorder
        self.plan = recorder.plan

    async def look_around(self) -> None:
        """Browse, search and read until the end."""
        visits = (self._browse, self._search, self._product, self._order)
        while not self.plan.over:
            path, query = self.random.choices(visits, (25, 20, 40, 15))[0]()
            await self._request("GET", path, params=query)
            await self._pause()

    async def buy(self) -> None:
        """Order until the end."""
        while not self.plan.over:
            status, body = await self._request("POST", "/orders", json=self._basket())
            if status == CREATED:
                order = json.loads(body)
                units = sum(line["quantity"] for line in order["lines"])
                self.recorder.acknowledged.append(Acknowledged(order["id"], units))
                if self.plan.own_orders:
                    await self._look_at_own(order["id"])
            self.recorder.out_of_stock += status == CONFLICT
            await self._pause()

    async def _look_at_own(self, order: int) -> None:
        """The page that a shop shows next, as a redirect does: with the order, one hopes."""
        path, legal = f"/orders/{order}", (OK, NOT_FOUND)
        status, _ = await self._request("GET", path, legal)
        self.recorder.looks += status in legal
        self.recorder.not_found += status == NOT_FOUND

    async def _pause(self) -> None:
        """People look at what they got: independent of one another, so exponential pauses."""
        if self.plan.pause_s:
            await asyncio.sleep(self.random.expovariate(1 / self.plan.pause_s))

    def _browse(self) -> tuple[str, dict[str, str]]:
        page = min(1 + int(self.random.expovariate(1 / 5)), LAST_PAGE)
        return "/products", {"page": str(page)}

    def _search(self) -> tuple[str, dict[str, str]]:
        return "/search", {"q": search_prefix(self.random)}

    def _product(self) -> tuple[str, dict[str, str]]:
        return f"/products/{self.random.randint(1, self.plan.products)}", {}

    def _order(self) -> tuple[str, dict[str, str]]:
        """An order of before or the newest one: whoever was told 201 must find it."""
        fresh = self.recorder.acknowledged
        if fresh and not self.plan.own_orders and self.random.getrandbits(1):
            return f"/orders/{fresh[-1].order}", {}
        return f"/orders/{self.random.randint(1, self.plan.seeded_orders)}", {}

    def _basket(self) -> dict[str, Any]:
        count = min(self.random.randint(1, 3), self.plan.products)
        products = self.random.sample(range(1, self.plan.products + 1), count)
        lines = [{"product_id": p, "quantity": self.random.randint(1, 2)} for p in products]
        return {"customer": self.name, "lines": lines}

    async def _request(
        self, method: str, path: str, legal: tuple[int, ...] = (), **options: Any
    ) -> tuple[int, bytes]:
        """Send one request and record it: status and body, or 0 where it failed."""
        started = time.perf_counter()
        try:
            async with self.http.request(method, self.plan.url + path, **options) as response:
                status, body = response.status, await response.read()
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            return await self._failed(f"{type(error).__name__}: {error}")
        if status in (legal or LEGAL[method]):
            self.recorder.answered(method, started)
            return status, body
        return await self._failed(
            f"{method} {status} {body[:REASON_BYTES].decode(errors='replace')}"
        )

    async def _failed(self, reason: str) -> tuple[int, bytes]:
        self.recorder.errors[reason] += 1
        await asyncio.sleep(PAUSE_AFTER_ERROR_S)
        return 0, b""


async def run(plan: Plan, *, readers: int, writers: int) -> LoadResult:
    """All customers at once, to the end and a bounded moment longer for the last answers."""
    recorder = Recorder(plan)
    async with AsyncExitStack() as browsers:

        async def customer(name: str) -> Customer:
            http = await browsers.enter_async_context(_browser())
            return Customer(name, http, recorder)

        looking = [await customer(f"reader-{n}") for n in range(readers)]
        buying = [await customer(f"writer-{n}") for n in range(writers)]
        tasks = [asyncio.create_task(one.look_around()) for one in looking]
        tasks += [asyncio.create_task(one.buy()) for one in buying]
        cpu_share = await _report_ticks(recorder)
        _done, late = await asyncio.wait(tasks, timeout=DRAIN_S)
        recorder.errors.update({"no answer": len(late)} if late else {})
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks)
    return recorder.result(cpu_share)


def _browser() -> aiohttp.ClientSession:
    """A connection and cookies of a customer's own; unsafe: also of a site without a name."""
    jar = aiohttp.CookieJar(unsafe=True)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=jar)


async def _report_ticks(recorder: Recorder) -> float:
    """Tell how far the load is, to its end; the share of one core that this process used."""
    started, cpu_started = time.perf_counter(), time.process_time()
    while not recorder.plan.over:
        await asyncio.sleep(TICK_S)
        elapsed = time.perf_counter() - started
        _say(Tick(elapsed, sum(recorder.in_time.values())))
    return (time.process_time() - cpu_started) / (time.perf_counter() - started)


def _say(message: Tick | LoadResult) -> None:
    typer.echo(to_line(message))


def main(
    *,
    url: Annotated[str, typer.Option()],
    products: Annotated[int, typer.Option()],
    orders: Annotated[int, typer.Option(help="Orders already there, numbered from 1.")],
    seconds: Annotated[float, typer.Option()],
    pause: Annotated[float, typer.Option(help="Mean seconds between a customer's requests.")],
    readers: Annotated[int, typer.Option()],
    writers: Annotated[int, typer.Option()],
    own_orders: Annotated[bool, typer.Option(help="Customers look at what they ordered.")] = False,
) -> None:
    """Visit the shop at that address."""
    measure_from = time.perf_counter() + WARM_UP_S
    ends_at = measure_from + seconds
    plan = Plan(url, products, orders, pause, measure_from, ends_at, own_orders)
    _say(asyncio.run(run(plan, readers=readers, writers=writers)))


if __name__ == "__main__":
    typer.run(main)
