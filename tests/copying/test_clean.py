"""A file without faults: every value is the same on the server."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

from tests.copying.everything import TEXTS, everything, metadata, rows
from tests.copying.files import copied, make_file, rows_in, rows_of
from tests.postgresql import App


def plain(value: Any) -> Any:
    """Return a value as both drivers would: psycopg makes an object of an address."""
    if isinstance(value, (ipaddress.IPv4Address, ipaddress.IPv4Interface)):
        return str(value).removesuffix("/32")
    return value


async def test_all_types(app: App, tmp_path: Path) -> None:
    """What an application reads on the server is what it reads in the file."""
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
