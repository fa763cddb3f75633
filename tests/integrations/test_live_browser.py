"""The live page in a browser: display, clicks, keys, and the requests that it does not send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.integrations.live import feed, live_page
from tests.helpers import UPDATE_FIRST, create_items

from .chromium import NAMES, Tab, browser, chromium
from .serving import Server, serve

pytestmark = pytest.mark.skipif(
    chromium() is None,
    reason=f"no Chromium here: none of {', '.join(NAMES)} is on the path; $CHROMIUM names another",
)

PICTURES = Path(__file__).parents[2] / "build" / "live"
# A task's name, and SQL, that would run as a program if inserted as markup.
MARKUP = "<img src=x onerror='window.run = 1'>"
SCRIPT = "SELECT '<script>window.run = 1</script>',\n       'in a second line' -- " + MARKUP
ROW = "#slowest tbody tr"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """Provide one browser for all tests of the module."""
    with browser(tmp_path_factory.mktemp("chromium")) as tab:
        yield tab


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "INTERVAL_SECONDS", 0.1)


def application(watched: Any, allow: Callable[[Request], bool] = lambda _request: True) -> Any:
    return Starlette(routes=[Mount("/sqlite", live_page(watched, allow=allow))])


@asynccontextmanager
async def busy(db: SQLiteDatabase) -> AsyncIterator[Server]:
    """Run a server, beside a task that holds the turn and another one in line."""
    await create_items(db.writer_engine)
    async with db.read() as session:
        await session.execute(text(SCRIPT))
        for _ in range(3):
            await session.execute(text("SELECT count(*) FROM items"))
    holding, done = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with db.write() as session:
            await session.execute(UPDATE_FIRST)
            await session.execute(text(SCRIPT))
            holding.set()
            await done.wait()

    holder = asyncio.create_task(hold(), name=MARKUP)
    await holding.wait()
    waiter = asyncio.create_task(db.run_write(lambda session: session.execute(UPDATE_FIRST) and 0))
    try:
        async with serve(application(db)) as (_, server):
            yield server
    finally:
        done.set()
        await asyncio.gather(holder, waiter)


def opened(tab: Tab, server: Server) -> None:
    """Open the page, and wait for its first two samples."""
    tab.show(width=1280, height=900)
    tab.open(f"{server.url}/sqlite/")
    tab.until("document.querySelector('#charts .value')?.textContent.endsWith('/s')")


async def test_what_is_seen(tab: Tab, db: SQLiteDatabase) -> None:
    """The page shows turn, line, log and statements, in three sizes and themes, without errors."""

    def look(server: Server) -> None:
        opened(tab, server)
        assert tab.text("h1") == "app.db"
        assert tab.text("#status") == "live"
        assert "Held for" in tab.text("#turn")
        assert "1 in line" in tab.text("#turn")
        assert "test_live_browser.py:" in tab.text("#turn")
        assert "hard 64 MiB" in tab.text("#log")
        assert "writer" in tab.text("#holders")
        assert "reader" in tab.text("#connections")
        for name, width, dark in (
            ("desktop-light", 1280, False),
            ("desktop-dark", 1280, True),
            ("phone", 360, False),
        ):
            tab.show(width=width, height=800, dark=dark)
            tab.picture(PICTURES / f"{name}.png")
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.complaints() == []
        requested = tab.requested()
        assert len(requested) >= 8
        assert all(url.startswith(f"{server.url}/sqlite/") for url in requested)

    async with busy(db) as server:
        await asyncio.to_thread(look, server)


async def test_texts_of_others_are_text(tab: Tab, db: SQLiteDatabase) -> None:
    """SQL and task names that contain markup are shown as they are, and are not executed."""

    def look(server: Server) -> None:
        opened(tab, server)
        tab.until(f"document.querySelector('#turn').textContent.includes({MARKUP!r})")
        codes = f"[...document.querySelectorAll('{ROW} code')]"
        texts = tab.evaluate(f"{codes}.map((code) => code.textContent)")
        assert SCRIPT in texts
        assert tab.evaluate("window.run") is None
        assert tab.evaluate("document.querySelectorAll('img, main script').length") == 0
        assert tab.complaints() == []

    async with busy(db) as server:
        await asyncio.to_thread(look, server)


async def test_a_click_shows_all_of_a_statement(tab: Tab, db: SQLiteDatabase) -> None:
    """It stays open while samples arrive, and the next click closes it."""

    def look(server: Server) -> None:
        opened(tab, server)
        assert tab.evaluate("document.querySelectorAll('details[open]').length") == 0
        tab.evaluate(
            f"[...document.querySelectorAll('{ROW}')].find(row =>"
            " row.textContent.includes('script')).id = 'chosen'"
        )
        height = "document.querySelector('#chosen summary').offsetHeight"
        before = tab.evaluate(height)
        tab.click("#chosen summary")
        assert tab.evaluate(height) > before
        about = tab.text("#about")
        tab.until(f"document.querySelector('#about').innerText !== {about!r}")
        assert tab.evaluate("document.querySelector('#chosen details').open")
        tab.picture(PICTURES / "opened.png")
        tab.click("#chosen summary")
        assert not tab.evaluate("document.querySelector('#chosen details').open")

    async with busy(db) as server:
        await asyncio.to_thread(look, server)


async def test_the_keyboard_does_what_the_mouse_does(tab: Tab, db: SQLiteDatabase) -> None:
    """Enter opens a statement and sorts the table; arrow keys move back in time in a chart."""

    def look(server: Server) -> None:
        opened(tab, server)
        tab.evaluate(f"document.querySelector('{ROW} summary').focus()")
        tab.press("Enter", "\r")
        tab.until(f"document.querySelector('{ROW} details').open")
        about = tab.text("#about")
        tab.until(f"document.querySelector('#about').innerText !== {about!r}")
        assert tab.evaluate("document.activeElement.tagName") == "SUMMARY"

        head = "[...document.querySelectorAll('#slowest th')].find(h => h.innerText === 'Runs')"
        tab.evaluate(f"{head}.querySelector('button').focus()")
        tab.press("Enter", "\r")
        sorted_by = "document.querySelector('#slowest th[aria-sort=descending]')"
        tab.until(f"{sorted_by}.innerText.trim() === 'Runs'")
        runs = tab.evaluate(
            f"[...document.querySelectorAll('{ROW} [data-title=Runs]')].map(e => +e.textContent)"
        )
        assert runs == sorted(runs, reverse=True)

        tab.evaluate("document.querySelector('#charts .plot').focus()")
        tab.until("document.querySelector('#charts .axis').innerText.includes('now')")
        tab.press("ArrowLeft")
        label = tab.evaluate("document.querySelector('#charts .plot').ariaLabel")
        assert label.startswith("Statements, ")
        assert "inline " in label

    async with busy(db) as server:
        await asyncio.to_thread(look, server)


async def test_several_databases(tab: Tab, db: SQLiteDatabase, tmp_path: Path) -> None:
    """Each has a button; a closed one says so; a reload shows the chosen one again."""
    jobs = SQLiteDatabase(tmp_path / "jobs.db")

    def look(server: Server) -> None:
        opened(tab, server)
        assert tab.text("h1") == "shop"
        tab.click("nav button:nth-child(2)")
        assert tab.text("h1") == "<b>jobs"
        assert "jobs.db is not open" in tab.text("#problem")
        assert tab.evaluate("document.querySelector('#panels').hidden")
        assert tab.text("nav [aria-pressed=true]") == "<b>jobs"
        tab.send("Page.reload")
        tab.until("document.querySelector('h1').innerText === '<b>jobs'")
        tab.click("nav button:nth-child(1)")
        assert tab.text("#turn").startswith("Free")
        assert tab.complaints() == []

    async with serve(application({"shop": db, "<b>jobs": jobs})) as (_, server):
        await asyncio.to_thread(look, server)


async def test_a_lost_connection(tab: Tab, db: SQLiteDatabase) -> None:
    """A message says so, the data is dimmed, and the page recovers when the server is back."""
    async with serve(application(db)) as (_, server):
        await asyncio.to_thread(opened, tab, server)
    lost = "document.querySelector('#status').innerText.startsWith('connection lost')"
    await asyncio.to_thread(tab.until, lost)
    opacity = "getComputedStyle(document.querySelector('main')).opacity"
    assert await asyncio.to_thread(tab.evaluate, opacity) == "0.5"
    async with serve(application(db), port=server.port):
        await asyncio.to_thread(tab.until, "document.querySelector('#status').innerText === 'live'")
        assert await asyncio.to_thread(tab.evaluate, opacity) == "1"


async def test_access_that_ends(
    tab: Tab, db: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream ends after its time, and a new one is refused: no new data is shown."""
    monkeypatch.setattr(feed, "STREAM_SECONDS", 0.3)
    allowed = [True]
    async with serve(application(db, lambda _request: allowed[0])) as (_, server):
        await asyncio.to_thread(opened, tab, server)
        allowed[0] = False
        lost = "document.querySelector('#status').innerText.startsWith('connection lost')"
        await asyncio.to_thread(tab.until, lost)


async def test_a_page_in_the_background_asks_for_nothing(tab: Tab, db: SQLiteDatabase) -> None:
    """No sampler runs for it; when it is visible again, it continues."""

    def look(server: Server) -> None:
        opened(tab, server)
        hidden = "Object.defineProperty(document, 'hidden', {{ value: {}, configurable: true }});"
        tell = "document.dispatchEvent(new Event('visibilitychange'))"
        tab.evaluate(hidden.format("true") + tell)
        about = tab.text("#about")
        tab.evaluate("new Promise((done) => setTimeout(done, 400))")
        assert tab.text("#about") == about
        tab.evaluate(hidden.format("false") + tell)
        tab.until(f"document.querySelector('#about').innerText !== {about!r}")
        assert tab.text("#status") == "live"

    async with serve(application(db)) as (_, server):
        await asyncio.to_thread(look, server)
