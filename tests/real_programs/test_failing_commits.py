"""Tests of an application in which a COMMIT fails: what they may replace, on stock and here."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event

from .doors import Application, Door


class SimulatedError(Exception):
    """The error with which the test makes the COMMIT fail."""


def _fail(*_: Any) -> None:
    raise SimulatedError


def _replace_the_dialects(app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.writer.sync_engine.dialect, "do_commit", _fail)


def _listen(app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise before the COMMIT is sent; the listener is removed with its engine."""
    event.listen(app.writer.sync_engine, "commit", _fail)


@pytest.mark.parametrize("simulate", [_replace_the_dialects, _listen])
async def test_a_commit_that_is_made_to_fail(
    door: Door, simulate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is committed, and the next writer acquires its turn."""
    app = await door.open()
    await app.write("CREATE TABLE notes (id INTEGER)")
    with monkeypatch.context() as patch:
        simulate(app, patch)
        with pytest.raises(SimulatedError):
            await app.write("INSERT INTO notes VALUES (1)")
    if event.contains(app.writer.sync_engine, "commit", _fail):
        event.remove(app.writer.sync_engine, "commit", _fail)
    await app.write("INSERT INTO notes VALUES (2)")
    assert await app.rows("SELECT id FROM notes") == [(2,)]
