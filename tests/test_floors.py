"""The house: imports go downwards, whatever function they stand in."""

from __future__ import annotations

import ast
from pathlib import Path

import sa_sqlite_pool

PACKAGE = Path(sa_sqlite_pool.__file__).parent

# From the ground up. Inside a floor, a module may import those before it.
FLOORS = [
    ["errors"],
    ["life"],
    ["forks"],
    ["main_greenlets"],
    ["regular_files"],
    ["waiting"],
    ["background"],
    ["registry"],
    ["process_locks"],
    ["settings"],
    [
        "turn.whereabouts",
        "turn.permit",
        "turn.snapshots",
        "turn.deadlines",
        "turn.fair_semaphore",
        "turn.courtesy",
        "turn.lock_file",
        "turn.file_turn",
        "turn.write_turn",
    ],
    [
        "driver.driver_errors",
        "driver.statements",
        "driver.mounts",
        "driver.location",
        "driver.site",
        "driver.urls",
        "driver.guard",
        "driver.shared_hooks",
        "driver.runners",
        "driver.greenlets",
        "driver.neighbours",
        "driver.rules",
        "driver.locks",
        "driver.mailbox",
        "driver.jobs",
        "driver.lane",
        "driver.raw",
        "driver.open_files",
        "driver.worker",
        "driver.laps",
        "driver.resources",
        "driver.inspection",
        "driver.read_only",
        "driver.configuring",
        "driver.isolation",
        "driver.creator",
        "driver.costs",
        "driver.cursors",
        "driver.attaching",
        "driver.own_settings",
        "driver.placement",
        "driver.reading",
        "driver.writing",
        "driver.attached",
        "driver.transaction",
        "driver.examination",
        "driver.outside_transactions",
        "driver.statement",
        "driver.preparation",
        "driver.performing",
        "driver.one_at_a_time",
        "driver.executor",
        "driver.adapter",
        "driver.watch",
        "driver.losses",
        "driver.borrowed",
        "driver.here",
        "driver.one_read",
        "driver.deferral",
        "driver.shared_transaction",
        "driver.log_file",
        "driver.reset_bug",
        "driver.checkpoints",
        "driver.unfinished",
        "driver.copying",
        "driver.private_directory",
        "driver.images",
        "driver.opening",
    ],
    ["statistics"],
    [
        "wal.policy",
        "wal.presence",
        "wal.reports",
        "wal.lookout",
        "wal.checkpointing",
        "wal.keeper",
    ],
    [
        "pools.dialect",
        "pools.loans",
        "pools.fitness",
        "pools.idle",
        "pools.records",
        "pools.resting",
        "pools.kept",
        "pools.on_file",
        "pools.base",
        "pools.swap_in",
        "pools.reader",
        "pools.writer",
        "pools.plugin",
    ],
    [
        "sessions.reads",
        "sessions.temporary",
        "sessions.transaction",
        "sessions.composing",
        "sessions.lean",
        "sessions.routing",
        "sessions.maker",
        "sessions.given_out",
        "sessions.lending",
        "sessions.grouping",
        "sessions.closures",
        "sessions.coroutine_functions",
    ],
    ["backup", "restoring"],
    ["database"],
    [
        "migrations.aside",
        "migrations.transaction",
        "migrations.environment",
        "migrations.commands",
    ],
    ["integrations.fastapi"],
    ["__init__"],
]
ORDER = [module for floor in FLOORS for module in floor]
EXCEPTIONS = {("__init__", "integrations.fastapi")}


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if not name.endswith(".__init__"):
            found[name] = ast.parse(path.read_text())
    return found


def imports(module: str, tree: ast.Module) -> set[str]:
    """The package's own modules that ``module`` imports, and the outside ones by first name."""
    package = module.split(".")[:-1]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] + (node.module or "").split(".")
            target = ".".join(part for part in base if part)
            submodules = {f"{target}.{alias.name}" for alias in node.names} & set(ORDER)
            found |= submodules or {target}
    return found


def test_every_module_has_its_floor() -> None:
    """A new module is given its place here."""
    assert set(modules()) == set(ORDER)


def test_imports_go_downwards() -> None:
    """No module imports from its own height or above."""
    upward = [
        (module, target)
        for module, tree in modules().items()
        for target in imports(module, tree)
        if target in ORDER and ORDER.index(target) >= ORDER.index(module)
    ]
    assert upward == []


def test_the_turn_knows_neither_sqlalchemy_nor_sqlite() -> None:
    """turn/ is asyncio and threads."""
    for module, tree in modules().items():
        if module.startswith("turn."):
            assert not imports(module, tree) & {"sqlalchemy", "sqlite3", "aiosqlite"}


def test_only_the_driver_touches_sqlite() -> None:
    """Nobody else opens, executes or closes. Types and error families may be named."""
    users = {module for module, tree in modules().items() if "aiosqlite" in imports(module, tree)}
    users_there = {"driver.raw", "driver.worker", "driver.adapter", "driver.creator"}
    assert users == {*users_there, "driver.opening"}


def test_extras_are_imported_by_nothing() -> None:
    """The package works without its neighbours, and without Alembic, installed."""
    for module, tree in modules().items():
        targets = {target.split(".")[0] for target in imports(module, tree)}
        assert "integrations" not in targets, module
        assert "migrations" not in targets or module.startswith("migrations."), module
