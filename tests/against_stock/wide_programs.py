"""A wide program: as ``programs.py``, with the engine's options, events, warnings and log records.

Each error is compared with its type, ``orig``, ``statement``, ``params``, ``code`` and cause.
"""

from __future__ import annotations

import logging
import random
import re
import warnings
from pathlib import Path
from typing import Any

from sqlalchemy import event, exc, text
from sqlalchemy.ext.asyncio import AsyncEngine

from .operations import Block, Step
from .programs import Outcome, engine_and_sessions, entered, shown
from .wide_cancelling import ON_BOTH, detach, dispose
from .wide_connections import ON_CONNECTIONS
from .wide_models import metadata, register
from .wide_sessions import ON_SESSIONS

_STEPS = (
    [*ON_CONNECTIONS, *ON_BOTH, detach, dispose],
    [*ON_SESSIONS, *ON_BOTH, dispose],
)
_OF_ENGINES = ("begin", "commit", "rollback", "savepoint", "rollback_savepoint")
_OF_POOLS = ("checkout", "checkin", "reset", "invalidate", "soft_invalidate", "detach")
_WARNINGS_OF_THEIRS = re.compile("sqlalchemy|default datetime adapter")


async def run(kind: str, rng: random.Random, path: Path) -> list[Outcome]:
    options = _options(rng)
    found: list[Outcome] = [("options", repr(options))]
    engine, sessions = engine_and_sessions(kind, path, dict(options))
    event.listen(engine.sync_engine, "connect", register)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        await connection.execute(text("INSERT INTO anchors VALUES (1, 0)"))
    told: list[str] = []
    _listen(engine, told, rng.random() < 0.3)
    for _ in range(rng.randrange(2, 5)):
        way = rng.choice(["connect", "connect", "begin", "autocommit", "session", "session"])
        block = Block(rng, way == "autocommit" or options.get("isolation_level") == "AUTOCOMMIT")
        found.append(("block", way))
        try:
            async with entered(way, engine, sessions) as executor:
                steps = _STEPS[way == "session"]
                for _ in range(rng.randrange(3, 16)):
                    found.append(await _step(rng.choice(steps), executor, block, told))
                    told.clear()
                if rng.random() < 0.3:
                    raise LookupError("at the end of the block")
        except Exception as error:
            found.append(("its end", fully(error), tuple(told)))
        found.append(("events at the end", tuple(told)))
        told.clear()
    await engine.dispose()
    return found


def _options(rng: random.Random) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if rng.random() < 0.5:
        options["isolation_level"] = rng.choice(["AUTOCOMMIT", "SERIALIZABLE", "READ UNCOMMITTED"])
    if rng.random() < 0.2:
        options["pool_pre_ping"] = True
    if rng.random() < 0.2:
        options["pool_reset_on_return"] = rng.choice(["commit", None, "rollback"])
    if rng.random() < 0.2:
        options["hide_parameters"] = True
    if rng.random() < 0.2:
        options["insertmanyvalues_page_size"] = 2
    if rng.random() < 0.2:
        options["query_cache_size"] = 0
    if rng.random() < 0.2:
        options["execution_options"] = {"schema_translate_map": {None: "main"}}
    return options


def _listen(engine: AsyncEngine, told: list[str], rewrites: bool) -> None:
    sync = engine.sync_engine

    def tell(name: str) -> Any:
        return lambda *_, **__: told.append(name)

    for name in (*_OF_ENGINES, "release_savepoint", "set_connection_execution_options"):
        event.listen(sync, name, tell(name))
    for name in _OF_POOLS:
        event.listen(sync.pool, name, tell(name))

    def before(_: object, __: object, sql: str, values: Any, ___: object, many: bool) -> Any:
        told.append(f"before {many} {sql[:12]}")
        return sql + " /* rewritten */", values

    def after(_: object, cursor: Any, sql: str, *__: object) -> None:
        told.append(f"after {sql[:12]} {cursor.description is not None}")

    def failed(context: Any) -> None:
        told.append(f"error {type(context.original_exception).__name__}")
        told.append(f"{context.is_disconnect} {context.invalidate_pool_on_disconnect}")

    if rewrites:
        event.listen(sync, "before_cursor_execute", before, retval=True)
    event.listen(sync, "after_cursor_execute", after)
    event.listen(sync, "handle_error", failed)


class _Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(f"{record.name} {record.levelname} {record.getMessage()[:60]}")


async def _step(step: Step, executor: Any, block: Block, told: list[str]) -> Outcome:
    block.said = []
    records = _Records()
    logging.getLogger().addHandler(records)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                result = shown(await step(executor, block))
            except Exception as error:
                result = fully(error)
    finally:
        logging.getLogger().removeHandler(records)
    said = [
        _plain(f"{one.category.__name__} {one.message}")
        for one in warned
        if not issubclass(one.category, ResourceWarning)  # of a connection of an earlier program
    ]
    return step.__name__, block.said, result, tuple(told), said, records.told


def fully(error: BaseException | None, depth: int = 3) -> str:
    """Return the comparable text of an error with everything that SQLAlchemy tells in it."""
    if error is None or depth == 0:
        return "None"
    parts = [shown(error)]
    if isinstance(error, exc.StatementError):
        original = error.orig
        code = getattr(original, "sqlite_errorname", None)
        parts += [f"{error.statement!r} {error.params!r} {error.code}", f"{type(original)} {code}"]
        parts.append(f"{error.hide_parameters} {getattr(error, 'connection_invalidated', None)}")
        parts.append(f"{error.ismulti if hasattr(error, 'ismulti') else None} {error.detail}")
        parts.append(f"args {getattr(original, 'args', None)}")
    parts.append(f"cause {fully(error.__cause__, depth - 1)}")
    return _plain(" | ".join(parts))


def _plain(told: str) -> str:
    """Return a text without addresses and without the numbers of sessions."""
    return re.sub(r" at 0x[0-9a-f]+|session '\d+' \(this is '\d+'\)", "", told)
