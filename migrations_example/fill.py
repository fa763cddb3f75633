"""A database of an older version of the application, with 100,000 rows.

Run `python -m fill` before `python -m app`.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Iterator

from database import ALEMBIC, database
from rich.progress import track
from sqlalchemy import text

from sa_sqlite_pool.migrations import current, upgrade

CUSTOMERS, ORDERS_EACH, LINES_EACH = 1_000, 34, 2  # 102,000 rows depend on their customers
REVISION = "0001"

# The tables as of that revision, not as in today's models.
CUSTOMER = text("INSERT INTO customers VALUES (:id, :name, :email, :limit)")
ORDER = text("INSERT INTO orders (id, customer_id) VALUES (:id, :customer)")
LINE = text("INSERT INTO order_lines VALUES (:id, :order, :product, :quantity, :price)")


async def main() -> None:
    async with database() as db:
        await upgrade(db, REVISION, config=ALEMBIC)
        async with db.read() as session:
            filled = await session.scalar(text("SELECT count(*) FROM customers"))
        if filled or await current(db, config=ALEMBIC) != (REVISION,):
            sys.exit("there is a database already; remove example.db* first")
        for first in track(range(1, CUSTOMERS + 1, 50), "filling example.db"):
            ids = range(first, first + 50)
            async with db.write() as session:
                await session.execute(CUSTOMER, [customer(number) for number in ids])
                await session.execute(ORDER, list(orders(ids)))
                await session.execute(LINE, list(lines(ids)))


def customer(number: int) -> dict[str, object]:
    """Return a customer; every other one has no credit limit, which revision 0002 adds."""
    name = f"customer {number}"
    limit = None if number % 2 else number * 100
    return {"id": number, "name": name, "email": f"{number}@example.org", "limit": limit}


def order_ids(customers: range) -> range:
    return range((customers[0] - 1) * ORDERS_EACH + 1, customers[-1] * ORDERS_EACH + 1)


def orders(customers: range) -> Iterator[dict[str, int]]:
    for number in order_ids(customers):
        yield {"id": number, "customer": (number - 1) // ORDERS_EACH + 1}


def lines(customers: range) -> Iterator[dict[str, object]]:
    chance = random.Random(customers[0])
    for order in order_ids(customers):
        for line in range(LINES_EACH):
            yield {
                "id": (order - 1) * LINES_EACH + line + 1,
                "order": order,
                "product": chance.choice(["tea", "pot", "cup", "spoon"]),
                "quantity": chance.randint(1, 9),
                "price": chance.randint(100, 9_999),
            }


if __name__ == "__main__":
    asyncio.run(main())
