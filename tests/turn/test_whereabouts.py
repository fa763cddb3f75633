"""Where the application asked."""

from __future__ import annotations

from typing import Any

import pytest

from sa_sqlite_pool.turn.whereabouts import Caller, caller


@pytest.mark.parametrize(
    ("file", "module", "expected"),
    [
        ("<string>", "__main__", "<string>:2"),
        ("<string>", "sqlalchemy.orm.session", "test_whereabouts.py:"),
        ("<sqlalchemy generated connect>", "sqlalchemy.orm.session", "test_whereabouts.py:"),
    ],
)
def test_code_without_a_file(file: str, module: str, expected: str) -> None:
    """What ``python -c`` runs is named, and what SQLAlchemy generates is not."""
    names: dict[str, Any] = {"__name__": module, "caller": caller}
    exec(compile("def ask():\n    return caller()", file, "exec"), names)
    asked = names["ask"]()
    assert isinstance(asked, Caller)
    assert str(asked).startswith(expected)
