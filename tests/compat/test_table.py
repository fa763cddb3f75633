"""``docs/compat.md`` is complete: it is read before each release of the other libraries."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import sa_sqlite_pool

from .private_uses import private_uses

HERE = Path(__file__).parent
PACKAGE = Path(sa_sqlite_pool.__file__).parent
PAGE = HERE.parents[1] / "docs" / "compat.md"
ROWS = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]


def column(number: int) -> set[str]:
    """Return the names in backticks in a column of all tables."""
    return {found for row in ROWS for found in re.findall(r"`([^`]+)`", row.split(" | ")[number])}


def contracts() -> set[str]:
    return {
        node.name
        for path in HERE.glob("test_*_contract.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name[:5] == "test_"
    }


def test_each_contract_has_its_row() -> None:
    """Each row has its contract, too."""
    assert column(2) == contracts()


def test_modules_are_there() -> None:
    """A module that was renamed, or that no longer relies on internals, needs changed rows."""
    assert {name for name in column(1) if not (PACKAGE / name).is_file()} == set()


@pytest.mark.parametrize("module", sorted(private_uses()))
def test_private_names_have_a_row(module: str) -> None:
    """A private name of another library is listed in a row of each module that uses it.

    Otherwise, when the name is removed, only applications fail.
    """
    path = f"`{module.replace('.', '/')}.py`"
    rows = " ".join(row for row in ROWS if path in row)
    named = set(re.findall(r"\b_[A-Za-z_]+", rows))
    assert private_uses()[module] - named == set()
