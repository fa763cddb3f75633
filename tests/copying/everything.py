"""A table with every type of SQLAlchemy, and with an application's own types."""

from __future__ import annotations

import enum
import uuid
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    CHAR,
    JSON,
    REAL,
    BigInteger,
    Boolean,
    Column,
    Computed,
    Date,
    DateTime,
    Double,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    PickleType,
    SmallInteger,
    String,
    Table,
    Text,
    Time,
    Unicode,
    UnicodeText,
    Uuid,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeDecorator


class Colour(enum.Enum):
    """A Python enum."""

    RED = 1
    DARK_BLUE = 2


class Secret(TypeDecorator[str]):
    """A text that is stored differently each time; the stored value is copied."""

    impl = Text
    cache_ok = True
    times = 0

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        Secret.times += 1
        return None if value is None else f"{Secret.times}:{value[::-1]}"

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value.partition(":")[2][::-1]


class Utc(TypeDecorator[datetime]):
    """A time with a time zone, stored as UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value.astimezone(timezone.utc)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value.replace(tzinfo=timezone.utc)


class Exact(TypeDecorator[Decimal]):
    """A decimal, stored as text if the database has no decimals."""

    impl = Numeric(30, 10)
    cache_ok = True

    def load_dialect_impl(self, dialect: Any) -> Any:
        return dialect.type_descriptor(String(40) if dialect.name == "sqlite" else self.impl)

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return str(value) if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else Decimal(value)


metadata = MetaData()
everything = Table(
    "everything",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("string", String(20)),
    Column("unlimited", String),
    Column("text", Text),
    Column("unicode", Unicode(10)),
    Column("unicode_text", UnicodeText),
    Column("char", CHAR(6)),
    Column("small", SmallInteger),
    Column("big", BigInteger),
    Column("boolean", Boolean),
    Column("float", Float),
    Column("double", Double),
    Column("real", REAL),
    Column("numeric", Numeric(10, 2)),
    Column("any_numeric", Numeric),
    Column("whole", Numeric(12)),
    Column("datetime", DateTime),
    Column("date", Date),
    Column("time", Time),
    Column("interval", Interval),
    Column("emulated", Interval(native=False)),
    Column("bytes", LargeBinary),
    Column("json", JSON),
    Column("jsonb", JSON().with_variant(postgresql.JSONB(), "postgresql")),
    Column("enum", Enum(Colour)),
    Column("names", Enum("a", "b'c", native_enum=False)),
    Column("uuid", Uuid),
    Column("uuid_text", Uuid(as_uuid=False)),
    Column("emulated_uuid", Uuid(native_uuid=False)),
    Column("pickle", PickleType),
    Column("secret", Secret),
    Column("utc", Utc),
    Column("exact", Exact),
    Column("inet", String().with_variant(postgresql.INET(), "postgresql")),
    Column("array", JSON().with_variant(postgresql.ARRAY(Text), "postgresql")),
    Column("computed", Integer, Computed("id * 2", persisted=True)),
)

TEXTS = ["", "plain", "tab\tline\nreturn\r", "\\N", "\\", "\b\f\v\\.", "ünïcode €", "𝄞 '\"", "  "]
DOCUMENTS: list[Any] = [
    {"b": [1, 2.5, None, True], "a": {"c": "ü\t\n\\"}},
    [],
    5,
    "text",
    {"x": 1e20, "y": 0.1, "z": 12345678901234567890},
    "\\u0000 is text",
]


def rows() -> list[dict[str, Any]]:
    """Return rows with values of all kinds; the last row has only NULLs."""
    moment = datetime(2024, 2, 29, 23, 59, 59, 120_000)
    found = []
    for i, text in enumerate(TEXTS):
        sign = -1 if i % 2 else 1
        found.append(
            {
                "id": i + 1,
                **dict.fromkeys(("string", "unlimited", "text", "unicode_text"), text),
                "unicode": text[:10],
                "char": text[:3].strip() + "x",
                "small": sign * 32_767,
                "big": sign * 2**62,
                "boolean": bool(i % 2),
                "float": sign * 10.0 ** (i * 5),
                "double": sign / 3,
                "real": [1_234_567.0, 0.125, -3.5][i % 3],
                "numeric": sign * Decimal("12345.67") + i,
                "any_numeric": sign * Decimal("0.001"),
                "whole": sign * 10**11,
                "datetime": moment.replace(microsecond=100_000 * i),
                "date": date(1 + i, 1, 1),
                "time": time(i, 0, 1, 10 * i),
                "interval": sign * timedelta(days=i, hours=1, microseconds=10),
                "emulated": timedelta(days=i, seconds=3),
                "bytes": bytes(range(256)) * i,
                **dict.fromkeys(("json", "jsonb"), DOCUMENTS[i % len(DOCUMENTS)]),
                "enum": list(Colour)[i % 2],
                "names": ["a", "b'c"][i % 2],
                "uuid": uuid.UUID(int=i),
                "uuid_text": str(uuid.UUID(int=2**127 + i)),
                "emulated_uuid": uuid.UUID(int=i),
                "pickle": {"a": (1, text)},
                "secret": text,
                "utc": moment.replace(tzinfo=timezone(timedelta(hours=i))),
                "exact": sign * Decimal("12345678901234567890.0123456789"),
                "inet": f"10.0.0.{i}",
                "array": [text, "b"],
            }
        )
    return [*found, dict.fromkeys(found[0]) | {"id": 100}]
