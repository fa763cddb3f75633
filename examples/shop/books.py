"""Do the books balance? Asked with plain sqlite3 or psql, after the web server has gone.

Nothing of the package or of SQLAlchemy takes part, so neither can hide its own mistake.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .results import Acknowledged, LoadResult

Ask = Callable[[str], Sequence[tuple[Any, ...]]]
"""Returns the rows of a query."""

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
    LEFT JOIN order_lines AS l ON l.order_id = o.id GROUP BY o.id ORDER BY o.id
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


def check_file(database: Path, seeded_orders: int, told: LoadResult) -> Books:
    """Check the books of a SQLite file, and the file."""
    with closing(sqlite3.connect(database)) as connection:

        def ask(query: str) -> Sequence[tuple[Any, ...]]:
            return connection.execute(query).fetchall()

        return check_books(ask, seeded_orders, told, _damage(ask))


def check_books(ask: Ask, seeded_orders: int, told: LoadResult, damage: Sequence[str]) -> Books:
    """Check the shop's books against themselves and against what the customers were told.

    An order of a request that failed may be stored although nobody was told so. Any other order
    that no customer knows of is a problem. `damage` is what is wrong with the database itself.
    """
    acknowledged = told.acknowledged
    orders: dict[int, int] = dict(ask(UNITS_OF_ORDERS))
    new_orders = len(orders) - seeded_orders
    problems = [*_of_the_tables(ask), *damage, *_of_acknowledgements(orders, acknowledged)]
    if new_orders - len(acknowledged) > told.failed:
        problems.append(f"{new_orders - len(acknowledged)} orders that no customer knows of")
    ((products, received, stock),) = ask("SELECT count(*), sum(received), sum(stock) FROM products")
    return Books(
        products=products,
        received=received,
        sold=sum(orders.values()),
        stock=stock,
        new_orders=new_orders,
        acknowledged=len(acknowledged),
        problems=tuple(problems),
    )


def _of_the_tables(ask: Ask) -> list[str]:
    """What does not add up inside the database."""
    counts = {
        "products whose stock is not received - sold": WRONG_STOCK,
        "products with negative stock": "SELECT count(*) FROM products WHERE stock < 0",
        "orders without lines": EMPTY_ORDERS,
    }
    found = {what: _one(ask, query) for what, query in counts.items()}
    return [f"{count} {what}" for what, count in found.items() if count]


def _damage(ask: Ask) -> list[str]:
    """What SQLite finds wrong with the file."""
    broken, integrity = len(ask("PRAGMA foreign_key_check")), _one(ask, "PRAGMA integrity_check")
    problems = [f"{broken} broken foreign keys"] if broken else []
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


def _one(ask: Ask, query: str) -> int | str:
    value: int | str = ask(query)[0][0]
    return value
