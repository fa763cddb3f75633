"""FreshnessMiddleware: a client reads what it has written, and nothing older than it has read."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
from fastapi import FastAPI

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.freshness import BEYOND_ALL, parse_token, token_of
from sa_sqlite_pool.integrations.freshness import FreshnessMiddleware
from tests.integrations.lagging import asked, balance, bank, client_of, deposit, opened, paused
from tests.integrations.serving import serve
from tests.postgresql import App, until

HUGE = "FFFFFFFF/FFFFFFFF"


async def test_a_client_with_cookies(app: App) -> None:
    """It reads what it has written, from the primary as long as no replica shows it."""
    async with opened(app) as db, client_of(bank(db)) as client, paused(*app.cluster.replicas):
        await client.post("/1/deposit")
        found = await asked(client)
        assert (found.balance, found.port) == (1, app.cluster.primary.port)


async def test_two_clients_do_not_share(app: App) -> None:
    """A write by one client does not affect the other, whose reads use a replica."""
    async with opened(app) as db, paused(*app.cluster.replicas):
        served = bank(db)
        async with client_of(served) as client, client_of(served) as other:
            await client.post("/1/deposit")
            found = await asked(other)
            assert found.balance == 0
            assert found.port in {replica.port for replica in app.cluster.replicas}


async def test_a_client_without_cookies(app: App) -> None:
    """The header works the same way for a client that returns the header it received."""
    async with (
        opened(app) as db,
        client_of(bank(db, cookie=None)) as client,
        paused(*app.cluster.replicas),
    ):
        answer = await client.post("/1/deposit")
        assert "set-cookie" not in answer.headers
        assert (await asked(client)).balance == 0
        seen = {"X-Seen": answer.headers["x-seen"]}
        assert (await asked(client, headers=seen)).balance == 1


async def test_names_are_the_applications(app: App) -> None:
    """Both names can be chosen, and either one can be disabled."""
    async with opened(app) as db:
        async with client_of(bank(db, cookie="position", header=None)) as client:
            answer = await client.post("/1/deposit")
            assert list(answer.cookies) == ["position"]
            assert "x-seen" not in answer.headers
        async with client_of(bank(db, header="X-Position")) as client:
            assert "x-position" in (await client.post("/1/deposit")).headers


async def test_of_several_tokens_the_furthest_counts(app: App) -> None:
    """The sources are the header, the cookie and further cookies of that name; some are damaged."""
    async with opened(app) as db, client_of(bank(db)) as client:
        before = (await client.post("/1/deposit")).headers["x-seen"]
        await until(app.cluster.caught_up)
        async with paused(*app.cluster.replicas):
            after = (await client.post("/1/deposit")).headers["x-seen"]
            client.cookies.clear()
            for headers in (
                [("x-seen", before), ("cookie", f"seen={after}")],
                [("x-seen", after), ("cookie", f"seen={before}")],
                [("x-seen", "damaged"), ("cookie", f"seen={after}")],
                [("cookie", f"seen={after}; seen={before}")],
                [("cookie", f"seen={after}"), ("cookie", "other=1")],
                [("cookie", f'seen="{after}"')],
            ):
                assert (await asked(client, headers=headers)).balance == 2, headers


async def test_cookies_of_others(app: App) -> None:
    """Other cookies may contain anything that a browser sends; they do not hide the token."""
    async with opened(app) as db, client_of(bank(db)) as client, paused(*app.cluster.replicas):
        token = (await client.post("/1/deposit")).headers["x-seen"]
        client.cookies.clear()
        for other in ('prefs={"dark": true}', "a b=c", "=", "noise", "ü=ö", 'q="1;2"'):
            for cookies in (f"{other}; seen={token}", f"seen={token}; {other}"):
                headers = [(b"cookie", cookies.encode("latin-1"))]
                assert (await asked(client, headers=headers)).balance == 1, cookies


async def test_a_damaged_token_is_none(app: App) -> None:
    """The request is served like one without a token."""
    damaged = ["", "0", "/", "0/", "0/0", "0/G", "-1/5", "+1/5", "0x1/5", "1_0/5", "½/1"]
    async with opened(app) as db, client_of(bank(db)) as client, paused(*app.cluster.replicas):
        await deposit(db, 1)
        for token in (*damaged, "123456789/0"):
            found = await asked(client, headers=[(b"x-seen", token.encode("latin-1"))])
            assert found.balance == 0, token


async def test_a_forged_token_is_lowered(app: App) -> None:
    """Reads use the primary, which reports a lower position; later reads may use replicas again."""
    async with opened(app) as db, client_of(bank(db)) as client:
        for forged in (HUGE, "FFFFFFF/0"):
            answer = await client.get("/1", headers={"x-seen": forged})
            assert answer.json()["port"] == app.cluster.primary.port
            lowered = answer.headers["x-seen"]
            reached = app.sql("SELECT pg_current_wal_insert_lsn()")
            assert parse_token(lowered) <= parse_token(reached)
            await deposit(db, 1)
            await until(app.cluster.caught_up)
            found = await asked(client, headers={"x-seen": lowered})
            assert found.port in {replica.port for replica in app.cluster.replicas}


async def test_reads_do_not_go_back_in_time(app: App) -> None:
    """A client that has read from a replica reads nothing older from another one."""
    ahead, behind = app.cluster.replicas
    async with opened(app) as db, client_of(bank(db)) as client, paused(behind):
        await deposit(db, 1)
        await until(lambda: app.sql("SELECT balance FROM accounts", ahead) == "1")
        # Idle replicas are used in order, otherwise the one with fewer connections in use.
        assert (await asked(client)).port == ahead.port
        async with db.read() as busy:
            assert (await balance(busy)).port == ahead.port
            assert (await asked(client)).balance == 1
            client.cookies.clear()
            assert (await asked(client)).balance == 0


async def test_many_clients_of_a_web_server(app: App) -> None:
    """Each client reads its own deposits, through uvicorn, while replicas show none of them."""
    async with opened(app, accounts=10) as db, serve(bank(db)) as (client, _):

        async def visit(account: int) -> None:
            own = httpx.AsyncClient(base_url=client.base_url, trust_env=False, timeout=30)
            async with own:
                for made in range(1, 6):
                    await own.post(f"/{account}/deposit")
                    assert (await asked(own, account)).balance == made

        async with paused(*app.cluster.replicas):
            await asyncio.gather(*(visit(account + 1) for account in range(10)))


async def test_on_sqlite(path: Path) -> None:
    """No token is set, and one from elsewhere does no harm."""
    async with SQLiteDatabase(path) as db:
        served = FastAPI()
        served.add_middleware(FreshnessMiddleware, db=db)

        @served.post("/")
        async def write() -> int:
            def number(_session: object) -> int:
                return 1

            return await db.run_write(number) + await db.run_read(number)

        async with client_of(served) as client:
            for headers in ({}, {"x-seen": "0/1"}, {"x-seen": HUGE}, {"cookie": "seen=damaged"}):
                answer = await client.post("/", headers=headers)
                assert answer.json() == 2
                assert not {"set-cookie", "x-seen"} & set(answer.headers)


async def test_the_cookie(app: App) -> None:
    """It is valid site-wide and for some time, hidden from scripts, and Secure with https."""
    async with opened(app) as db:
        for scheme, secure in (("http", ""), ("https", "; Secure")):
            async with client_of(bank(db, seconds=7), scheme) as client:
                answer = await client.post("/1/deposit")
                token = answer.headers["x-seen"]
                assert answer.headers["set-cookie"] == (
                    f"seen={token}; Path=/; Max-Age=7; HttpOnly; SameSite=Lax{secure}"
                )


async def test_a_token_that_is_as_it_was_is_not_sent_again(app: App) -> None:
    """A request that does nothing sets nothing, even if it has a token."""
    async with opened(app) as db:
        served = bank(db)

        @served.head("/nothing/done")
        async def nothing() -> None: ...

        async with client_of(served) as client:
            for headers in ({}, {"x-seen": str(token_of(BEYOND_ALL))}):
                answer = await client.head("/nothing/done", headers=headers)
                assert not {"set-cookie", "x-seen"} & set(answer.headers)
