"""The tables and mapped classes of the wide programs."""

from __future__ import annotations

import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from .wide_cancelling import pause

metadata = MetaData()

anchors = Table("anchors", metadata, Column("id", Integer, primary_key=True), Column("n", Integer))
items = Table(
    "items",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("code", String, unique=True),
    Column("amount", Integer, CheckConstraint("amount < 90"), default=5),
    Column("twofold", Integer, Computed("amount * 2")),
    Column("day", DateTime, default=datetime.datetime(2024, 2, 29)),
    Column("body", JSON),
    Column("price", Numeric(8, 2)),
    Column("image", LargeBinary),
)
strict = Table(
    "strict",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("n", Integer),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)
pairs = Table(
    "pairs",
    metadata,
    Column("a", Integer, primary_key=True),
    Column("b", String, primary_key=True),
    Column("n", Integer),
    sqlite_with_rowid=False,
)
owned = Table(
    "owned",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("owner", ForeignKey("anchors.id", deferrable=True, initially="DEFERRED")),
    Column("strictly", ForeignKey("strict.id", ondelete="CASCADE")),
)


class Base(DeclarativeBase):
    metadata = metadata


memberships = Table(
    "memberships",
    metadata,
    Column("person", ForeignKey("people.id"), primary_key=True),
    Column("team", ForeignKey("teams.id"), primary_key=True),
    sqlite_with_rowid=False,  # SQLAlchemy inserts them in the order of a set
)


class Person(Base):
    __tablename__ = "people"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(unique=True)
    version: Mapped[int] = mapped_column()
    kind: Mapped[str] = mapped_column(default="person")
    letters: Mapped[list[Letter]] = relationship(
        back_populates="person", cascade="all, delete-orphan", order_by="Letter.id"
    )
    teams: Mapped[list[Team]] = relationship(
        secondary=memberships, back_populates="people", order_by="Team.id"
    )
    __mapper_args__ = {  # noqa: RUF012 - SQLAlchemy declares it for instances
        "version_id_col": version,
        "polymorphic_on": kind,
        "polymorphic_identity": "person",
    }


class Manager(Person):
    __tablename__ = "managers"

    id: Mapped[int] = mapped_column(ForeignKey("people.id"), primary_key=True)
    budget: Mapped[int] = mapped_column(default=1)
    __mapper_args__ = {"polymorphic_identity": "manager"}  # noqa: RUF012


class Letter(Base):
    __tablename__ = "letters"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str | None]
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    person: Mapped[Person] = relationship(back_populates="letters")


class Team(Base):
    __tablename__ = "teams"

    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(server_default="none")
    people: Mapped[list[Person]] = relationship(secondary=memberships, back_populates="teams")


def register(connection: Any, _record: object) -> None:
    """Register a function and a collation in a ``connect`` listener."""

    def reverse(one: str, other: str) -> int:
        return (one < other) - (one > other)

    def refuse(value: object) -> object:
        if value == 3:
            raise ValueError("three")
        return value

    connection.create_function("refuse", 1, refuse)
    connection.create_function("pause", 1, pause)
    connection.run_async(lambda raw: raw._execute(raw._conn.create_collation, "reversed", reverse))
