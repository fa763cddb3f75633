"""The application: it upgrades its database to the latest revision, and then works.

Run `python -m app`, any number of times and in any number of processes at once.
"""

from __future__ import annotations

import asyncio
import time

from database import ALEMBIC, database
from models import Customer, Order, OrderLine
from sqlalchemy import func, select

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.migrations import current, upgrade


async def main() -> None:
    async with database() as db:
        before, started = await current(db, config=ALEMBIC), time.monotonic()
        await upgrade(db, "head", config=ALEMBIC)
        after, seconds = await current(db, config=ALEMBIC), time.monotonic() - started
        print(f"at {', '.join(before) or 'nothing'}, upgraded to {after[0]} in {seconds:.1f} s")
        print("customers, orders, lines:", *await counts(db))
        order = await place_order(db, "ada@example.org", [("tea", 3, 250), ("pot", 1, 1_900)])
        print(f"{order.customer.name} has ordered for {order.total_cents / 100:.2f}")


async def counts(db: SQLiteDatabase) -> list[int]:
    """Return the numbers of rows, all from one snapshot."""
    async with db.read() as session:
        return [
            await session.scalar(select(func.count(model.id))) or 0
            for model in (Customer, Order, OrderLine)
        ]


async def place_order(db: SQLiteDatabase, email: str, lines: list[tuple[str, int, int]]) -> Order:
    """Place an order in one write transaction; the first order adds the customer."""
    async with db.write() as session:
        customer = await session.scalar(select(Customer).where(Customer.email == email))
        if customer is None:
            customer = Customer(name=email.partition("@")[0].title(), email=email)
        order = Order(customer=customer, total_cents=sum(n * cents for _, n, cents in lines))
        session.add(order)
        session.add_all(
            OrderLine(order=order, product=product, quantity=quantity, unit_price_cents=cents)
            for product, quantity, cents in lines
        )
    return order


if __name__ == "__main__":
    asyncio.run(main())
