"""Do the books balance? Asked of the file with plain sqlite3, after the server has gone.

Nothing of the package or of SQLAlchemy takes part, so neither can hide its own mistake.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from .results import Acknowledged

WRONG_STOCK = """
    SELECT count(*) FROM products AS p
    LEFT JOIN (SELECT product_id, sum(quantity) AS sold FROM order_lines GROUP BY product_id) AS l
    ON l.product_id = p.id
    WHERE p.stock <> p.received - coalesce(l.sold, 0)
"""
EMPTY_ORDERS = """
    SELECT count(*) FROM orders AS o
    WHERE NOT EXISTS (SELECT 1 FROM order_lines AS l WHERE l.order_id = o.id)
"""
UNITS_OF_ORDERS = """
    SELECT o.id, coalesce(sum(l.quantity), 0) FROM orders AS o
    LEFT JOIN order_lines AS l ON l.order_id = o.id GROUP BY o.id
"""


@dataclass(frozen=True, slots=True)
class Books:
    """The numbers, and every reason why they do not add up."""

    products: int
    received: int
    sold: int
    stock: int
    new_orders: int
    acknowledged: int
    problems: tuple[str, ...]

    @property
    def balance(self) -> bool:
        """Whether everything adds up."""
        return not self.problems


def check_books(
    database: Path, *, seeded_orders: int, acknowledged: Sequence[Acknowledged], lost_answers: int
) -> Books:
    """Check the shop's books against themselves and against what the customers were told.

    `lost_answers` is how many requests failed: an order of one of those may be stored although
    nobody was told so. Any other order that no customer knows of is a problem.
    """
    with closing(sqlite3.connect(database)) as connection:
        orders: dict[int, int] = dict(connection.execute(UNITS_OF_ORDERS))
        new_orders = len(orders) - seeded_orders
        problems = [*_of_the_file(connection), *_of_acknowledgements(orders, acknowledged)]
        if new_orders - len(acknowledged) > lost_answers:
            problems.append(f"{new_orders - len(acknowledged)} orders that no customer knows of")
        totals = "SELECT count(*), sum(received), sum(stock) FROM products"
        products, received, stock = connection.execute(totals).fetchone()
    return Books(
        products=products,
        received=received,
        sold=sum(orders.values()),
        stock=stock,
        new_orders=new_orders,
        acknowledged=len(acknowledged),
        problems=tuple(problems),
    )


def _of_the_file(connection: sqlite3.Connection) -> list[str]:
    """What is wrong inside the database."""
    counts = {
        "products whose stock is not received - sold": _one(connection, WRONG_STOCK),
        "products with negative stock": _one(
            connection, "SELECT count(*) FROM products WHERE stock < 0"
        ),
        "orders without lines": _one(connection, EMPTY_ORDERS),
        "broken foreign keys": len(connection.execute("PRAGMA foreign_key_check").fetchall()),
    }
    problems = [f"{count} {what}" for what, count in counts.items() if count]
    integrity = _one(connection, "PRAGMA integrity_check")
    return problems if integrity == "ok" else [*problems, f"integrity_check: {integrity}"]


def _of_acknowledgements(orders: dict[int, int], acknowledged: Sequence[Acknowledged]) -> list[str]:
    """Which promises to customers were not kept."""
    missing = sum(a.order not in orders for a in acknowledged)
    altered = sum(orders.get(a.order, a.units) != a.units for a in acknowledged)
    twice = sum(times > 1 for times in Counter(a.order for a in acknowledged).values())
    counts = {
        "acknowledged orders that are not stored": missing,
        "acknowledged orders with other quantities": altered,
        "order numbers given to two customers": twice,
    }
    return [f"{count} {what}" for what, count in counts.items() if count]


def _one(connection: sqlite3.Connection, query: str) -> int | str:
    value: int | str = connection.execute(query).fetchone()[0]
    return value
