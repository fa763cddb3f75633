"""The house: imports point downwards from folder to folder, without cycles inside a folder."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import benchmarks
import sa_sqlite_pool

PACKAGE = Path(sa_sqlite_pool.__file__).parent
BENCHMARKS = Path(benchmarks.__file__).parent

# From the ground up: folders, and modules that are floors of their own. A module may import from
# lower floors, and from its own.
FLOORS = [
    "errors",
    "settings",
    "mutex",
    "extras",
    "system",
    "life_cycle",
    "stats",
    "reporting",
    "freshness",
    "functions",
    "compat",
    "turn",
    "slow_statements",
    "files",
    "publishing",
    "sqlite",
    "postgresql",
    "execution",
    "transactions",
    "driver",
    "opening",
    "wal",
    "database_file",
    "pools",
    "sessions",
    "closures",
    "prepared",
    "backup",
    "database",
    "servers",
    "copying",
    "migrations",
    "integrations",
    "doctor",
    "cli",
    "__main__",
    "__init__",
]
EXCEPTIONS = {("__init__", "integrations.fastapi")}

# The maximum number of files in a folder, including __init__.py.
MOST_FILES = 12

# Test modules that sleep, and why: a campaign runs for a given time, and leaves real time to other
# processes to intervene; a virtual clock jumps.
SLEEPS = {
    "checkpoints/process.py",
    "checkpoints/run.py",
    "helpers.py",
}

# The maximum number of lines in a file of tests: a longer one has a second subject.
MOST_LINES = 400


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if not name.endswith(".__init__"):
            found[name] = ast.parse(path.read_text())
    return found


def imports(module: str, tree: ast.Module, names: set[str]) -> set[str]:
    """Return the package's modules that ``module`` imports, and the names of other packages."""
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
            submodules = {f"{target}.{alias.name}" for alias in node.names} & names
            found |= submodules or {target}
    return found


MODULES = modules()
IMPORTS = {name: imports(name, tree, set(MODULES)) for name, tree in MODULES.items()}


def floor(module: str) -> int:
    return FLOORS.index(module.split(".", maxsplit=1)[0])


def test_every_module_has_its_floor() -> None:
    """A new folder must be listed here."""
    assert {module.split(".")[0] for module in MODULES} == set(FLOORS)


def test_imports_go_downwards() -> None:
    """No module imports from a higher floor, not even inside a function."""
    upward = [
        (module, target)
        for module, targets in IMPORTS.items()
        for target in targets & set(MODULES)
        if floor(target) > floor(module)
    ]
    assert upward == []


def test_there_are_no_circles() -> None:
    """Modules in a folder are ordered, too: a cycle raises CycleError, which lists it."""
    order = TopologicalSorter(
        {module: targets & set(MODULES) for module, targets in IMPORTS.items()}
    )
    assert set(order.static_order()) == set(MODULES)


def test_a_folder_can_be_overlooked() -> None:
    """No folder has more files than a reader can keep in mind."""
    files = [*PACKAGE.rglob("*.py"), *BENCHMARKS.rglob("*.py")]
    for folder in {path.parent for path in files}:
        assert len(list(folder.glob("*.py"))) <= MOST_FILES, folder


def test_a_file_of_tests_can_be_overlooked() -> None:
    """No file is longer than can be read at once; helpers are in separate modules."""
    for path in Path(__file__).parent.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= MOST_LINES, path


def test_no_test_waits_for_time() -> None:
    """Tests wait for events, laps of the loop or conditions: time never decides."""
    here = Path(__file__).parent
    found = {
        path.relative_to(here).as_posix()
        for path in here.rglob("*.py")
        if any(map(sleeps, ast.walk(ast.parse(path.read_text()))))
    }
    assert found == SLEEPS


def sleeps(node: ast.AST) -> bool:
    """Return whether the node calls ``asyncio.sleep()`` or ``time.sleep()`` for more than a lap."""
    match node:
        case ast.Call(func=ast.Attribute(ast.Name("asyncio" | "time"), "sleep")):
            first = node.args[0]
            return not (isinstance(first, ast.Constant) and first.value == 0)
    return False


def test_the_turn_knows_neither_sqlalchemy_nor_sqlite() -> None:
    """turn/ uses only asyncio and threads."""
    for module, targets in IMPORTS.items():
        if module.startswith("turn."):
            assert not targets & {"sqlalchemy", "sqlite3", "aiosqlite"}


def test_few_know_aiosqlite() -> None:
    """Only these use its connections and threads; others just name types and error families."""
    users = {module for module, targets in IMPORTS.items() if "aiosqlite" in targets}
    in_its_thread = {"execution.raw", "execution.running", "execution.connection_thread"}
    assert users == {*in_its_thread, "driver.adapter", "opening.creator", "opening.connector"}


def test_extras_are_imported_by_nothing() -> None:
    """The package works without its integrations, and without Alembic, Typer and rich."""
    for module, targets in IMPORTS.items():
        folders = {target.split(".")[0] for target in targets}
        assert "integrations" not in folders or module.startswith("integrations."), module
        assert "migrations" not in folders or module.startswith("migrations."), module
        assert "cli" not in folders or module == "__main__" or module.startswith("cli."), module
        assert not targets & {"typer", "rich"} or module.startswith("cli."), module
