"""How an order is taken: all of it, or nothing."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from .models import Order, OrderLine, Product
from .schemas import OrderIn, OrderLineIn


class UnknownProductError(Exception):
    """The order names a product that the shop does not have."""


class OutOfStockError(Exception):
    """Fewer pieces on the shelf than the order wants."""


async def place_order(session: AsyncSession, wanted: OrderIn) -> Order:
    """Check the stock, take the pieces, store the order with its lines.

    Every error leaves the session's transaction to be rolled back by its owner.
    """
    products = await _products(session, wanted)
    order = Order(customer=wanted.customer)
    for line in wanted.lines:
        product = products[line.product_id]
        await _take(session, product, line)
        order.lines.append(
            OrderLine(product=product, quantity=line.quantity, price_cents=product.price_cents)
        )
    session.add(order)
    await session.flush()
    return order


async def _products(session: AsyncSession, wanted: OrderIn) -> dict[int, Product]:
    """The products of the order, all of them in stock as far as this read can tell."""
    ids = [line.product_id for line in wanted.lines]
    found = {p.id: p for p in await session.scalars(select(Product).where(Product.id.in_(ids)))}
    for line in wanted.lines:
        if line.product_id not in found:
            raise UnknownProductError(f"no product {line.product_id}")
        if found[line.product_id].stock < line.quantity:
            raise OutOfStockError(f"product {line.product_id} is out of stock")
    return found


async def _take(session: AsyncSession, product: Product, line: OrderLineIn) -> None:
    """Take the pieces from the shelf; right even where the read before was of an older moment."""
    taken = await session.execute(
        update(Product)
        .where(Product.id == product.id, Product.stock >= line.quantity)
        .values(stock=Product.stock - line.quantity)
        .returning(Product.id)
        .execution_options(synchronize_session=False)
    )
    if taken.first() is None:
        raise OutOfStockError(f"product {product.id} is out of stock")
