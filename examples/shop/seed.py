"""A fresh shop: products on the shelves and the orders of its first days, the same every time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import Connection, create_engine, insert
from sqlalchemy.engine import URL

from .catalogue import delivered_units, product_name
from .models import Base, Order, OrderLine, Product

RANDOM_SEED = 1
ORDERS = 2_000
OPENING_DAY = datetime(2024, 3, 1, 9, 0)  # UTC, as SQLite's CURRENT_TIMESTAMP

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Seeded:
    """What the shop starts with; identifiers run from 1 to each count."""

    products: int
    orders: int


def seed(path: Path, *, products: int) -> Seeded:
    """Create the database file at `path` and fill it in one transaction."""
    engine = create_engine(URL.create("sqlite", database=str(path)))
    try:
        with engine.begin() as connection:
            return fill(connection, products)
    finally:
        engine.dispose()


def fill(connection: Connection, products: int) -> Seeded:
    """Create the tables and fill them, in the transaction of the connection."""
    random = Random(RANDOM_SEED)
    stocked = list(_products(random, products))
    orders, lines = _first_orders(random, stocked)
    Base.metadata.create_all(connection)
    connection.execute(insert(Product), stocked)
    connection.execute(insert(Order), orders)
    connection.execute(insert(OrderLine), lines)
    connection.exec_driver_sql("ANALYZE")
    return Seeded(products=products, orders=len(orders))


def _products(random: Random, count: int) -> Iterator[Row]:
    for number in range(1, count + 1):
        name, thing = product_name(random)
        received = delivered_units(random)
        yield {
            "id": number,
            "sku": f"{thing[:3].upper()}-{number:06d}",
            "name": name,
            "description": f"{name}, made to last." if random.randrange(5) else None,
            "price_cents": random.randint(2, 200) * 100 - 5,
            "received": received,
            "stock": received,
        }


def _first_orders(random: Random, products: list[Row]) -> tuple[list[Row], list[Row]]:
    """Orders of the first days; what they bought leaves the shelves."""
    orders: list[Row] = []
    lines: list[Row] = []
    for number in range(1, ORDERS + 1):
        bought = [p for p in random.sample(products, random.randint(1, 3)) if p["stock"] > 0]
        if not bought:
            bought = [next(p for p in products if p["stock"] > 0)]
        orders.append(_order(random, number))
        lines.extend(_take(product, number) for product in bought)
    # Ids without a gap: the clients may ask for any order from 1 to the last.
    return orders, lines


def _order(random: Random, number: int) -> Row:
    return {
        "id": number,
        "customer": f"customer-{random.randrange(500)}",
        "created_at": OPENING_DAY + timedelta(minutes=number),
    }


def _take(product: Row, order: int) -> Row:
    product["stock"] -= 1
    return {
        "order_id": order,
        "product_id": product["id"],
        "quantity": 1,
        "price_cents": product["price_cents"],
    }
