"""Store the total of each order, computed from its lines.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# The tables as of this revision, not as in the models of a later day.
orders = sa.table("orders", sa.column("id"), sa.column("total_cents"))
lines = sa.table(
    "order_lines", sa.column("order_id"), sa.column("quantity"), sa.column("unit_price_cents")
)


def upgrade() -> None:
    op.add_column(
        "orders",
        sa.Column("total_cents", sa.Integer(), server_default=sa.text("0"), nullable=False),
    )
    total = sa.func.coalesce(sa.func.sum(lines.c.quantity * lines.c.unit_price_cents), 0)
    of_order = sa.select(total).where(lines.c.order_id == orders.c.id).scalar_subquery()
    op.execute(orders.update().values(total_cents=of_order))


def downgrade() -> None:
    op.drop_column("orders", "total_cents")  # no batch: SQLite can drop columns since 3.35
