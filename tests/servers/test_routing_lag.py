"""Auto sessions while the replica shows nothing new: guarantees, and how to get them."""

from __future__ import annotations

from sqlalchemy import select

from tests.postgresql import App

from .freezing import standing_still
from .models import Account, create_accounts
from .routed import Routed, increase


async def test_a_writer_session_sees_its_writes_however_late_the_replica_is(routed: Routed) -> None:
    """It does with ``role="writer"``, on any engines: refresh, ``merge()``, three decrements."""
    with standing_still(routed.replica):
        async with routed.maker(role="writer") as session:
            session.add(added := Account(id=2, balance=5))
            await session.commit()
            await session.refresh(added)
            await session.merge(Account(id=2, balance=6))
            await session.commit()
            for _ in range(3):
                await increase(session, -1)
                await session.commit()
    assert await routed.balance() == 7


async def test_an_auto_session_begins_again_on_the_replica(routed: Routed) -> None:
    """On plain engines, reads are not fresh: the next transaction may not see the last commit."""
    with standing_still(routed.replica):
        async with routed.maker() as session:
            await increase(session)
            assert await session.scalar(select(Account.balance)) == 11
            await session.commit()
            assert await session.scalar(select(Account.balance)) == 10


async def test_an_auto_session_in_a_fresh_block_sees_its_writes(app: App) -> None:
    """``db.fresh()`` guarantees the same: reads use the primary while the replica is behind."""
    async with app.open(replicas=app.replica_urls[:1]) as db:
        await create_accounts(db, balance=10)
        with standing_still(app.cluster.replicas[0]):
            async with db.fresh(), db.sessionmaker() as session:
                session.add(added := Account(id=2, balance=5))
                await session.commit()
                await session.refresh(added)
                await session.merge(Account(id=2, balance=6))
                await session.commit()
                for _ in range(3):
                    await increase(session, -1)
                    await session.commit()
                session.expunge_all()
                assert (await session.get_one(Account, 1)).balance == 7
