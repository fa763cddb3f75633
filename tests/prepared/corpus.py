"""Reading statements of every kind, with parameters, on a table with every kind of column."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Date,
    DateTime,
    Dialect,
    Enum,
    Executable,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    String,
    Time,
    TypeDecorator,
    Uuid,
    bindparam,
    case,
    column,
    exists,
    func,
    literal,
    literal_column,
    select,
    table,
    text,
    tuple_,
    type_coerce,
    union_all,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Words(TypeDecorator[list[str]]):
    """A list of words, stored as one string."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: list[str] | None, dialect: Dialect) -> str | None:
        return None if value is None else " ".join(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> list[str] | None:
        return None if value is None else value.split()


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "things"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    good: Mapped[bool] = mapped_column(Boolean)
    at: Mapped[datetime.datetime] = mapped_column(DateTime)
    day: Mapped[datetime.date] = mapped_column(Date)
    hour: Mapped[datetime.time] = mapped_column(Time)
    took: Mapped[datetime.timedelta] = mapped_column(Interval)
    color: Mapped[Color] = mapped_column(Enum(Color))
    extra: Mapped[Any] = mapped_column(JSON)
    price: Mapped[decimal.Decimal] = mapped_column(Numeric(10, 2, asdecimal=False))
    key: Mapped[uuid.UUID] = mapped_column(Uuid)
    blob: Mapped[bytes] = mapped_column(LargeBinary)
    words: Mapped[Any] = mapped_column("the words", Words)


def things() -> list[dict[str, Any]]:
    """Return the rows of the table."""
    return [
        {
            "id": number,
            "name": None if number == 3 else f"thing {number}",
            "good": number % 2 == 0,
            "at": datetime.datetime(2024, 1, number, 12, 30),
            "day": datetime.date(2024, 2, number),
            "hour": datetime.time(number, 15),
            "took": datetime.timedelta(seconds=number),
            "color": Color.RED if number < 3 else Color.BLUE,
            "extra": {"n": [number, None]},
            "price": number + 0.25,
            "key": uuid.UUID(int=number),
            "blob": bytes([number]),
            "the words": ["a", str(number)],
        }
        for number in range(1, 6)
    ]


@dataclass(frozen=True)
class Case:
    """A statement, and the parameters for several calls."""

    name: str
    statement: Executable
    calls: list[Mapping[str, Any]] = field(default_factory=lambda: [{}])

    def __str__(self) -> str:
        return self.name


_T = Thing.__table__
_other = aliased(Thing, name="other")
_id = {"id": 2}

CASES = [
    Case("all columns", select(_T).order_by(_T.c.id)),
    Case("by id", select(Thing.id, Thing.name).where(Thing.id == bindparam("id")), [_id]),
    Case("no row", select(Thing.id).where(Thing.id == bindparam("id")), [{"id": 99}]),
    Case("a constant", select(Thing.name).where(Thing.id == 2)),
    Case("constants and parameters", select(Thing.name, literal(7)).where(Thing.id > 1)),
    Case("a default", select(Thing.id).where(Thing.id == bindparam("id", 4)), [{}, _id]),
    Case(
        "a callable",
        select(Thing.id).where(Thing.id == bindparam("id", callable_=lambda: 3)),
        [{}, _id],
    ),
    Case(
        "one parameter twice",
        select(Thing.id).where(Thing.id >= bindparam("n"), Thing.id <= bindparam("n")),
        [{"n": 2}, {"n": 3}],
    ),
    Case(
        "one parameter twice, once with a default",
        select(Thing.id).where(Thing.id >= bindparam("n"), Thing.id <= bindparam("n", 3)),
        [{"n": 2}],
    ),
    Case("a label", select(Thing.id.label("number"), func.upper(Thing.name).label("loud"))),
    Case("names twice", select(Thing.id, Thing.id, _other.id).join(_other, _other.id == Thing.id)),
    Case("nameless", select(Thing.id + 1, func.count(), literal_column("2 + 2"))),
    Case("an aggregate", select(func.count(), func.max(Thing.at), func.sum(Thing.price))),
    *(
        Case(
            f"by {name}",
            select(_T.c[name], _T.c.id).where(_T.c[name] == bindparam("value")),
            [{"value": things()[1][key]}],
        )
        for name, key in (
            *((one, one) for one in ("good", "at", "day", "hour", "took", "color", "price")),
            *((one, one) for one in ("key", "blob")),
            ("the words", "the words"),
        )
    ),
    Case("JSON", select(Thing.extra["n"][0].as_integer(), Thing.extra)),
    Case("a union", union_all(select(Thing.id, Thing.name), select(_other.id, literal("x")))),
    Case("a CTE", select(select(Thing.at).cte("c"))),
    Case("a subquery", select(select(func.count(_other.id)).scalar_subquery(), Thing.color)),
    Case("exists", select(exists().where(Thing.id == bindparam("id"))), [_id, {"id": 99}]),
    Case("case", select(case((Thing.id > 2, "big"), else_="small"), Thing.good)),
    Case("window", select(func.row_number().over(order_by=Thing.id), Thing.took)),
    Case("coerced", select(type_coerce(Thing.name, Words), type_coerce(literal(1), Boolean))),
    Case(
        "limit and offset",
        select(Thing.id).order_by(Thing.id).limit(bindparam("n")).offset(bindparam("skip")),
        [{"n": 2, "skip": 1}, {"n": 0, "skip": 0}],
    ),
    Case("in a list", select(Thing.id).where(Thing.id.in_([1, 3]))),
    Case(
        "in a list that is a parameter",
        select(Thing.id, Thing.at).where(Thing.at.in_(bindparam("at", expanding=True))),
        [{"at": [things()[0]["at"], things()[2]["at"]]}, {"at": []}, {"at": [things()[1]["at"]]}],
    ),
    Case(
        "in a list of pairs",
        select(Thing.id).where(tuple_(Thing.id, Thing.name).in_(bindparam("pairs"))),
        [{"pairs": [(1, "thing 1"), (2, "no")]}, {"pairs": []}],
    ),
    Case(
        "literal_execute",
        select(Thing.id).where(Thing.id == bindparam("id", literal_execute=True)),
        [_id, {"id": 3}],
    ),
    Case("a table of names", select(table("things", column("id"), column("day")))),
    Case("text", text("SELECT id, day, name AS n FROM things ORDER BY id")),
    Case("text, all columns", text("SELECT * FROM things")),
    Case("text, dotted", text('SELECT t.id AS "t.id", t.name FROM things AS t')),
    Case("text, parameters", text("SELECT id FROM things WHERE id > :low"), [{"low": 3}]),
    Case(
        "text, typed parameters",
        text("SELECT id, at FROM things WHERE at = :at").bindparams(
            bindparam("at", type_=DateTime)
        ),
        [{"at": things()[3]["at"]}],
    ),
    Case(
        "text, typed columns",
        text("SELECT id, at, color FROM things").columns(_T.c.id, _T.c.at, _T.c.color),
    ),
    Case("text, named columns", text("SELECT at, id FROM things").columns(id=Integer, at=DateTime)),
    Case(
        "text, in a list",
        text("SELECT 1 WHERE 1 IN :n").bindparams(bindparam("n", [1, 2], expanding=True)),
    ),
    Case("explain", text("EXPLAIN QUERY PLAN SELECT * FROM things WHERE id = 1")),
    Case("a pragma", text("PRAGMA table_info(things)")),
    # Errors.
    Case("nothing given", select(Thing.id).where(Thing.id == bindparam("id")), [{}]),
    Case("of the wrong type", select(Thing.id).where(Thing.at == bindparam("at")), [{"at": "no"}]),
    Case("not for SQLite", select(bindparam("x")), [{"x": object()}, {"x": 2**80}]),
    Case("no such table", select(table("nothing", column("id")))),
    Case("a broken row", select(type_coerce(Thing.name, DateTime))),
    Case("an error of a function", select(func.json_extract(Thing.name, "$"))),
]
