"""What goes over the wire."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, field_validator


class _Row(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class ProductSummary(_Row):
    """A product in a list."""

    id: int
    sku: str
    name: str
    price_cents: int
    stock: int


class ProductPage(ProductSummary):
    """A product on its own page."""

    description: str | None


class OrderLineOut(_Row):
    """One line of a stored order."""

    product_id: int
    name: str
    quantity: int
    price_cents: int


class OrderOut(_Row):
    """A stored order."""

    id: int
    customer: str
    created_at: datetime
    lines: list[OrderLineOut]


class OrderLineIn(BaseModel):
    """One line of a wanted order."""

    product_id: int
    quantity: int = Field(ge=1, le=100)


class OrderIn(BaseModel):
    """A wanted order: at least one line, each product once."""

    customer: str = Field(min_length=1, max_length=100)
    lines: list[OrderLineIn] = Field(min_length=1, max_length=50)

    @field_validator("lines")
    @classmethod
    def _each_product_once(cls, lines: list[OrderLineIn]) -> list[OrderLineIn]:
        if len({line.product_id for line in lines}) < len(lines):
            raise ValueError("name each product once")
        return lines


class About(BaseModel):
    """What the server runs on, asked from the running connection."""

    engine: str
    database: str
    python: str
    sqlalchemy: str


class Reads(BaseModel):
    """How many reads went to a primary, and how many to its replicas; 0 where there are none."""

    primary: int = 0
    replicas: int = 0

    @property
    def share_of_replicas(self) -> float:
        """Of one; 0 where nothing was read."""
        return self.replicas / (self.primary + self.replicas or 1)
