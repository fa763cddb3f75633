"""A file without faults: every value is the same on the server."""

from __future__ import annotations

import ipaddress
from datetime import datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any

from sqlalchemy import CHAR, Column, DateTime, Integer, MetaData, Table, Time

from tests.copying.everything import TEXTS, everything, metadata, rows
from tests.copying.files import copied, make_file, rows_in, rows_of
from tests.postgresql import App


def plain(value: Any) -> Any:
    """Return a value as both drivers would; psycopg converts addresses to objects."""
    if isinstance(value, (ipaddress.IPv4Address, ipaddress.IPv4Interface)):
        return str(value).removesuffix("/32")
    return value


async def test_all_types(app: App, tmp_path: Path) -> None:
    """An application reads the same values on the server as from the file."""
    path = make_file(tmp_path / "app.db", metadata, {everything: rows()})
    report = await copied(path, app, metadata)
    assert report.rows == len(TEXTS) + 1
    here, there = rows_in(path, everything), await rows_of(app, everything)
    names = [column.name for column in everything.columns]
    for one, other in zip(here, there, strict=True):
        for name, stored, found in zip(names, one, other, strict=True):
            value = plain(found)
            if name == "char" and value is not None:
                value = value.rstrip(" ")
            assert value == stored, (one[0], name)
            assert isinstance(value, type(stored)), (one[0], name)


async def test_moments_with_zones(app: App, tmp_path: Path) -> None:
    """Values that SQLAlchemy has stored without a zone are UTC; an explicit zone is kept."""
    models = MetaData()
    zoned = Table(
        "zoned",
        models,
        Column("id", Integer, primary_key=True),
        Column("at", DateTime(timezone=True)),
        Column("clock", Time(timezone=True)),
    )
    rows = [{"id": 1, "at": datetime(2024, 7, 1, 12, 0, 0, 5000), "clock": time(12, 30)}]
    other = "INSERT INTO zoned VALUES (2, '2024-07-01 12:00:00+02:00', '12:30:00.5-01:30')"
    path = make_file(tmp_path / "app.db", models, {zoned: rows}, other)
    await copied(path, app, models)
    (_, at, clock), (_, other_at, other_clock) = await rows_of(app, zoned)
    assert at == datetime(2024, 7, 1, 12, 0, 0, 5000, tzinfo=timezone.utc)
    assert clock == time(12, 30, tzinfo=timezone.utc)
    assert other_at == datetime(2024, 7, 1, 10, tzinfo=timezone.utc)
    assert other_clock == time(12, 30, 0, 500_000, timezone(-timedelta(hours=1, minutes=30)))


async def test_texts_that_are_filled_with_spaces(app: App, tmp_path: Path) -> None:
    """PostgreSQL changes shorter texts, so a warning names them, but none of the full length."""
    models = MetaData()
    padded = Table(
        "padded",
        models,
        Column("id", Integer, primary_key=True),
        Column("short", CHAR(5)),
        Column("full", CHAR(2)),
        Column("no", CHAR(3)),
    )
    rows = [{"id": 1, "short": "ab", "full": "ab", "no": None}]
    path = make_file(tmp_path / "app.db", models, {padded: rows})
    report = await copied(path, app, models)
    assert report.warnings == [
        "padded.short is CHAR(5) and has shorter texts, which PostgreSQL fills with spaces: "
        "make it String(5) in the models"
    ]
    assert await rows_of(app, padded) == [(1, "ab   ", "ab", None)]
