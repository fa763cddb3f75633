"""Give every customer a credit limit that is not negative.

SQLite cannot alter a column, so the batch copies `customers` into a new table, drops the old one
and renames the new one: the parent of all orders is gone for a moment.

`copy_from` spells out the table as it stands, so nothing is read from the database, and the
revision can be rendered offline.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

CHECK_NAME = "ck_customers_credit_limit_not_negative"
CHECK = "credit_limit_cents >= 0"


def upgrade() -> None:
    op.execute("UPDATE customers SET credit_limit_cents = 0 WHERE credit_limit_cents IS NULL")
    before = customers(sa.Column("credit_limit_cents", sa.Integer(), nullable=True))
    with op.batch_alter_table("customers", copy_from=before) as batch:
        batch.alter_column(
            "credit_limit_cents",
            existing_type=sa.Integer(),
            nullable=False,
            server_default=sa.text("0"),
        )
        batch.create_check_constraint(op.f(CHECK_NAME), CHECK)


def downgrade() -> None:
    after = customers(
        sa.Column("credit_limit_cents", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint(CHECK, name=CHECK_NAME),
    )
    with op.batch_alter_table("customers", copy_from=after) as batch:
        batch.drop_constraint(op.f(CHECK_NAME), type_="check")
        batch.alter_column(
            "credit_limit_cents", existing_type=sa.Integer(), nullable=True, server_default=None
        )


def customers(*items: sa.schema.SchemaItem) -> sa.Table:
    """Return the table with ``items``, which this revision changes."""
    return sa.Table(
        "customers",
        sa.MetaData(),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("email", sa.String(200), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_customers"),
        sa.UniqueConstraint("email", name="uq_customers_email"),
        *items,
    )
