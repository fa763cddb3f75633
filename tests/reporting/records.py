"""The log records of the package, as JSON."""

from __future__ import annotations

import json
import logging
from typing import Any

from sa_sqlite_pool.reporting import events
from sa_sqlite_pool.reporting.events import Event, logger
from tests.helpers import until

# The attributes of every record; since Python 3.12, including the name of the logging task.
OF_EVERY_RECORD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}

# All events, in the order of their module.
EVENTS: list[type[Event]] = [
    found
    for found in vars(events).values()
    if isinstance(found, type) and issubclass(found, Event) and hasattr(found, "name")
]


class JSONFormatter(logging.Formatter):
    """Formats each record as one line of JSON: its text, and its additional fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {key: vars(record)[key] for key in vars(record).keys() - OF_EVERY_RECORD}
        return json.dumps({"message": record.getMessage(), **fields}, allow_nan=False)


class Records(logging.Handler):
    """``with Records() as records:`` keeps the records, and raises errors of the formatter."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JSONFormatter())
        self.all: list[logging.LogRecord] = []
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))
        self.all.append(record)

    def of(self, event: type[Event]) -> list[dict[str, Any]]:
        """Return the fields of all records of an event."""
        return [line for line in self.lines if line.get("event") == event.name]

    async def until(self, event: type[Event]) -> dict[str, Any]:
        """Wait for the first record of an event."""
        await until(lambda: self.of(event))
        return self.of(event)[0]

    def __enter__(self) -> Records:
        logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logger.removeHandler(self)
