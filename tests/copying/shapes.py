"""Tables of unusual shapes: cycles, self-references, odd names, composite keys."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    Sequence,
    String,
    Table,
    UniqueConstraint,
    text,
)

metadata = MetaData()
teams = Table(
    "teams",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(30), unique=True),
    Column("leader_id", ForeignKey("people.id", name="led_by", use_alter=True)),
)
people = Table(
    "people",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("team_id", ForeignKey("teams.id"), nullable=False),
    Column("boss_id", ForeignKey("people.id", ondelete="SET NULL")),
    Column("age", Integer, CheckConstraint("age >= 0", name="born")),
    Index("ix_people_age", "age", postgresql_where=text("age > 17")),
)
odd = Table(
    "Select",
    metadata,
    Column("order", Integer, primary_key=True, autoincrement=False),
    Column("Group By", String, primary_key=True),
    Column('quote"d', String),
    Column("colon:ed", String, server_default="a:b"),
)
odd_children = Table(
    "odd children",
    metadata,
    Column("id", Integer, Sequence("odd_numbers"), primary_key=True),
    Column("order", Integer),
    Column("group", String),
    ForeignKeyConstraint(["order", "group"], ["Select.order", "Select.Group By"]),
    UniqueConstraint("order", "group", name="Mixed Case"),
    Index("ix Odd", "group", "order"),
)
empty = Table("empty", metadata, Column("id", Integer, primary_key=True), sqlite_autoincrement=True)
kept = Table("kept", metadata, Column("id", Integer, primary_key=True), sqlite_autoincrement=True)

ROWS: dict[Table, list[dict[str, Any]]] = {
    teams: [{"id": 1, "name": "a", "leader_id": 2}, {"id": 5, "name": "b", "leader_id": None}],
    people: [
        {"id": 2, "team_id": 1, "boss_id": 3, "age": 30},
        {"id": 3, "team_id": 5, "boss_id": 3, "age": 10},
    ],
    odd: [
        {"order": 1, "Group By": "x", 'quote"d': "y", "colon:ed": ":z"},
        {"order": 1, "Group By": "y", 'quote"d': None, "colon:ed": "\\"},
    ],
    odd_children: [{"id": 9, "order": 1, "group": "y"}, {"id": 10, "order": 1, "group": None}],
    empty: [],
    kept: [{"id": 1}, {"id": 70}],
}
# The id 70 was used once, and must not be reused.
LATER = ("DELETE FROM kept WHERE id = 70",)
