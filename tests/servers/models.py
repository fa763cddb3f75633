"""The tables of these tests."""

from __future__ import annotations

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sa_sqlite_pool.servers.database import ServerDatabase
from tests.postgresql import App, until


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "accounts"

    id: Mapped[int] = mapped_column(primary_key=True)
    balance: Mapped[int] = mapped_column(default=0)


async def create_accounts(db: ServerDatabase, number: int = 1, balance: int = 0) -> None:
    """Create the table with accounts 1 to ``number``."""
    async with db.writer_engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with db.write() as session:
        session.add_all(Account(id=i + 1, balance=balance) for i in range(number))


async def ready(db: ServerDatabase, app: App) -> None:
    """Create the table with account 1, and wait until it is visible on the replicas."""
    await create_accounts(db)
    await until(app.cluster.caught_up)
