"""The table of events: no log record bypasses it, and any formatter can write its fields."""

from __future__ import annotations

import ast
import logging
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from sa_sqlite_pool.reporting import events
from sa_sqlite_pool.reporting.events import Event, LogLookFailed, log
from tests.reporting.records import EVENTS, OF_EVERY_RECORD, Records
from tests.test_floors import MODULES

PAGE = Path(__file__).parent.parent.parent / "docs" / "logging.md"

# How the names of fields that are measures end, or begin.
UNITS = ("seconds_", "_bytes")


def test_no_module_logs_by_itself() -> None:
    """log() creates all records of the package, except those of SQLAlchemy's pool logger."""
    importing = {
        name
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Import) and any(a.name == "logging" for a in node.names))
        or (isinstance(node, ast.ImportFrom) and node.level == 0 and node.module == "logging")
    }
    assert importing == {"reporting.events"}
    users = {
        (name, ast.unparse(node.func))
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and "logger" in ast.unparse(node.func)
    }
    assert users == {
        ("compat.sqlalchemy_core", "engine.logger.isEnabledFor"),
        ("compat.sqlalchemy_core", "pool.logger.isEnabledFor"),
        ("pools.base", "self.logger.info"),
        ("pools.returns", "self.logger.debug"),  # SQLAlchemy's pool logs closings
        ("pools.returns", "self.logger.exception"),
        ("pools.returns", "self.logger.info"),
        ("reporting.events", "logger.isEnabledFor"),
        ("reporting.events", "logger.log"),
    }


def test_log_is_given_an_event_of_the_table() -> None:
    """Each call names its event, in place or a line above."""
    named = {event.__name__ for event in EVENTS}
    for name, tree in MODULES.items():
        calls = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        ]
        if any(call.func.id == "log" for call in calls if isinstance(call.func, ast.Name)):
            assert {call.func.id for call in calls if isinstance(call.func, ast.Name)} & named, name


def test_the_table_has_all() -> None:
    """Names are unique, and there is no event outside the table."""

    def below(event: type[Event]) -> set[type[Event]]:
        found = {event} if hasattr(event, "name") else set()
        return found.union(*map(below, event.__subclasses__()))

    assert below(Event) == set(EVENTS)
    assert len({event.name for event in EVENTS}) == len(EVENTS)
    assert all(re.fullmatch("[a-z]+(_[a-z]+)+", event.name) for event in EVENTS)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_fields(event: type[Event]) -> None:
    """They hide no attribute of a record, have plain types, and include their units."""
    names = {field.name for field in fields(event)}
    assert not names & {*OF_EVERY_RECORD, "event"}
    for field in fields(event):
        plain = set(str(field.type).replace("list[str]", "str").split(" | "))
        assert plain <= {"str", "int", "float", "bool", "None"}, field
        if "float" in plain:
            assert any(unit in field.name for unit in UNITS), field


def test_the_page_has_the_table() -> None:
    """The page lists names, levels and fields in the same order."""
    rows = re.findall(r"^\| `([a-z_]+)` \| ([A-Z]+) \|([^|]*)\|", PAGE.read_text(), re.MULTILINE)
    assert [
        (name, level, re.findall("`([a-z_]+)`", described)) for name, level, described in rows
    ] == [
        (
            event.name,
            logging.getLevelName(event.level),
            [field.name for field in fields(event) if field.name != "database"],
        )
        for event in EVENTS
    ]


def test_a_record_names_its_caller(records: Records) -> None:
    """It is as if the caller had called the logger itself; an error includes its traceback."""
    error = ValueError("broken")
    log(LogLookFailed(database="app.db", error="broken"), "%s failed", "it", error=error)
    (record,) = records.all
    assert (record.name, record.levelno) == ("sa_sqlite_pool", logging.ERROR)
    assert (record.filename, record.funcName) == (
        "test_events.py",
        "test_a_record_names_its_caller",
    )
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert records.lines == [
        {
            "message": "it failed",
            "event": "log_look_failed",
            "database": "app.db",
            "error": "broken",
        }
    ]


def test_what_nobody_hears_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attributes are created only for records that are logged."""
    monkeypatch.setattr(events.logger, "level", logging.CRITICAL)
    events.logger.manager._clear_cache()  # type: ignore[attr-defined]
    try:
        monkeypatch.setattr(Event, "extra", lambda _: pytest.fail("it was made"))
        log(LogLookFailed(database="app.db", error="broken"), "it failed")
    finally:
        monkeypatch.undo()
        events.logger.manager._clear_cache()  # type: ignore[attr-defined]


def test_attributes_that_the_application_sets_stay(caplog: pytest.LogCaptureFixture) -> None:
    """``logging`` would refuse the record; all other attributes are there."""

    def made(*args: Any, **named: Any) -> logging.LogRecord:
        record = logging.LogRecord(*args, **named)
        record.error = "the application's"
        return record

    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(made)
    try:
        log(LogLookFailed(database="app.db", error="ours"), "it %s", "failed")
    finally:
        logging.setLogRecordFactory(before)
    (record,) = caplog.records
    assert record.getMessage() == "it failed"
    found = {name: vars(record)[name] for name in ("event", "database", "error")}
    assert found == {
        "event": "log_look_failed",
        "database": "app.db",
        "error": "the application's",
    }
