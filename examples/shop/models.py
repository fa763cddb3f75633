"""The shop's tables.

The books can be checked from the tables alone: `Product.received` never changes after delivery,
so at any moment `stock == received - sum(quantity of all order lines)`.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """The metadata of the shop."""


class Product(Base):
    """Something for sale."""

    __tablename__ = "products"
    __table_args__ = (
        CheckConstraint("stock >= 0", name="stock_never_negative"),
        CheckConstraint("price_cents > 0", name="price_positive"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[str] = mapped_column(String(20), unique=True)
    # NOCASE on the column is inherited by its index: "oak" finds "Oak" by a range of that index.
    # PostgreSQL has no collation of that name.
    name: Mapped[str] = mapped_column(
        String(100).with_variant(String(100, collation="NOCASE"), "sqlite"), index=True
    )
    description: Mapped[str | None] = mapped_column(Text)
    price_cents: Mapped[int]
    received: Mapped[int]
    stock: Mapped[int]


class Order(Base):
    """What one customer bought at one moment."""

    __tablename__ = "orders"
    __table_args__ = (Index("ix_orders_customer", "customer", "created_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[datetime] = mapped_column(server_default=func.current_timestamp())

    lines: Mapped[list[OrderLine]] = relationship(back_populates="order")


class OrderLine(Base):
    """A quantity of one product, at the price of the day."""

    __tablename__ = "order_lines"
    __table_args__ = (
        CheckConstraint("quantity > 0", name="quantity_positive"),
        # Its index also finds the lines of an order.
        UniqueConstraint("order_id", "product_id", name="one_line_a_product"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))
    product_id: Mapped[int] = mapped_column(ForeignKey("products.id"), index=True)
    quantity: Mapped[int]
    price_cents: Mapped[int]

    order: Mapped[Order] = relationship(back_populates="lines")
    product: Mapped[Product] = relationship()

    @property
    def name(self) -> str:
        """The product's name; load `product` with the line."""
        return self.product.name
