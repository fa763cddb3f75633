"""The page on moving to PostgreSQL, followed step by step."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.commanding import shell
from tests.postgresql import App
from tests.test_docs import DOCS, blocks

PAGE = "moving_to_postgresql.md"
URL = "postgresql+asyncpg://shop@db1/shop"


def commands() -> list[tuple[str, str]]:
    """Return the page's commands, except for the installation, each with its output."""
    text = "\n".join(blocks(PAGE, "console"))
    parts = re.split(r"^\$ (.*)\n", text, flags=re.MULTILINE)[1:]
    found = list(zip(parts[::2], parts[1::2], strict=True))
    return [(command, output) for command, output in found if not command.startswith("pip ")]


def same(output: str) -> list[object]:
    """Return the relevant part of an output, without seconds and the widths of tables."""
    output = re.sub(r"in \d+\.\d s, (.*) in all [\d,]+", r"in N s, \1 in all N", output.strip())
    lines = [line.rstrip() for line in output.splitlines() if not set(line) & set("┏┡└┃")]
    return [" ".join(line.split("│")[1:3]).split() if "│" in line else line for line in lines]


@pytest.fixture
def url(app: App) -> str:
    """Return the server's URL, which replaces the one on the page if the driver is the same."""
    if app.driver != "asyncpg":
        pytest.skip("the page uses asyncpg")
    return str(app.url())


def test_the_page(url: str, tmp_path: Path) -> None:
    """Every command prints the output on the page, and so does the application afterwards."""
    for command, output in commands():
        done = shell(command.replace(URL, url).replace("python ", f"{sys.executable} "), tmp_path)
        assert same(done.replace(url, URL)) == same(output), command
    (tmp_path / "shop.py").write_text(blocks(PAGE, "python")[-1].replace(URL, url))
    assert shell(f"{sys.executable} shop.py", tmp_path) == blocks(PAGE, "text")[0]


def test_all_kinds_are_listed() -> None:
    """The page lists all kinds that the check reports, and no others."""
    from sa_sqlite_pool.copying.columns.base import Kind  # noqa: PLC0415

    table = (DOCS / PAGE).read_text().partition("| kind |")[2].partition("\n\n")[0]
    listed = {
        name
        for line in table.splitlines()[2:]
        for name in re.findall(r"`([a-z0-9-]+)`", line.split("|")[1])
    }
    assert listed == {kind.value for kind in Kind}
