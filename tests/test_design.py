"""The pages for contributors name the modules and functions of the package correctly."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import sa_sqlite_pool

from .test_floors import FLOORS

PACKAGE = Path(sa_sqlite_pool.__file__).parent
DOCS = Path(__file__).parent.parent / "docs"

# ``pools/returns.py``, and ``name()`` or ``Class.name()`` after it on the same line.
_TOKEN = re.compile(r"`([\w/]+\.(?:py|js)|#?\w+(?:\.\w+)?\(\))`")


def section(page: str, title: str) -> str:
    """Return the text below a heading of a page, up to the next one."""
    text = (DOCS / page).read_text()
    found = re.search(rf"^## {title}\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)
    assert found is not None, title
    return found[1]


def rooms() -> list[str]:
    """Return columns two and three of each row; headings of groups, such as *Tools*, have none."""
    text = section("where_to_look.md", "From a report to a function")
    lines = re.findall(r"^\| [^*].*? \| (.*) \|$", text, re.MULTILINE)
    return lines[1:]


def steps() -> list[str]:
    """Return the numbered lines, each with its continuation lines."""
    text = section("design.md", "One read and one write, step by step")
    return re.findall(r"^\d+\. .*(?:\n {3}.*)*", text, re.MULTILINE)


# -- the house -------------------------------------------------------------------------------------


def house() -> list[str]:
    """Return the names in the list, in its order: ``turn/`` and ``turn/permit.py``, for example."""
    text = (DOCS / "house.md").read_text()
    (block,) = re.findall(r"```\nsa_sqlite_pool/\n(.*?)```", text, re.DOTALL)
    found, folders = [], [""]
    for line in block.splitlines():
        if match := re.match(r"((?:  ){1,3})(\w+(?:\.py|/))(?: |$)", line):
            depth = len(match[1]) // 2
            del folders[depth:]
            found.append(folders[-1] + match[2])
            if match[2].endswith("/"):
                folders.append(found[-1])
    return found


def modules() -> Iterator[str]:
    for path in PACKAGE.rglob("*.py"):
        if path.name != "__init__.py" or path.parent == PACKAGE:
            yield path.relative_to(PACKAGE).as_posix()


def folder_of(name: str) -> str:
    return name.rstrip("/").rpartition("/")[0] + "/"


def test_the_house_names_every_module() -> None:
    """A folder that is named without its files represents them, if each has a docstring."""
    named = set(house())
    opened = {folder_of(name) for name in named}
    for module in modules():
        folder = folder_of(module)
        if folder == "/" or folder in opened:
            assert module in named, module
        else:
            assert folder in named, module
            assert ast.get_docstring(ast.parse((PACKAGE / module).read_text())), module


def test_the_house_names_nothing_else() -> None:
    for name in house():
        path = PACKAGE / name
        assert path.is_dir() if name.endswith("/") else path.is_file(), name


def test_the_house_is_in_the_order_of_its_floors() -> None:
    """The order is from the ground up, as in tests/test_floors.py."""
    floors = [name for name in house() if "/" not in name.rstrip("/")]
    assert [name.rstrip("/").removesuffix(".py") for name in floors] == FLOORS


def test_the_floors_are_all_in_the_table_and_in_the_picture() -> None:
    """The table has their order; the picture shows the same floors from the top."""
    floors = section("design.md", "The floors")
    assert re.findall(r"^\| `(\w+)` \|", floors, re.MULTILINE) == FLOORS
    (picture,) = re.findall(r"```\n(.*?)```", floors, re.DOTALL)
    drawn = re.findall(r"\w+", re.sub(r"^.{26}|\(\w+\)", "", picture, flags=re.MULTILINE))
    assert sorted(drawn) == sorted(floor for floor in FLOORS if not floor.startswith("__"))


# -- where to look, and the two ways ---------------------------------------------------------------


@cache
def functions(path: Path) -> frozenset[str]:
    """Return a module's functions, and its classes' methods with and without the class name."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            for member in node.body:
                if isinstance(member, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    found |= {member.name, f"{node.name}.{member.name}"}
    return frozenset(found)


def missing(line: str) -> list[str]:
    """Return the names in ``line`` that do not exist; a function belongs to the preceding file."""
    gone, path = [], None
    for token in _TOKEN.findall(line):
        if not token.endswith("()"):
            path = PACKAGE / token
            if not path.is_file():
                gone.append(token)
                path = None
        elif path is None:
            gone.append(token)
        else:
            name = token.removesuffix("()")
            known = name in (functions(path) if path.suffix == ".py" else path.read_text())
            if not known:
                gone.append(f"{path.name} {token}")
    return gone


def names_both(line: str) -> bool:
    tokens = _TOKEN.findall(line)
    return len({token.endswith("()") for token in tokens}) == 2


def test_the_rooms_are_where_the_table_says() -> None:
    assert len(rooms()) > 40
    assert [gone for row in rooms() for gone in missing(row)] == []
    assert [row for row in rooms() if not names_both(row)] == []


def test_the_steps_are_where_the_page_says() -> None:
    assert len(steps()) > 30
    assert [gone for step in steps() for gone in missing(step)] == []
    assert [step for step in steps() if not names_both(step)] == []


def test_a_name_that_is_gone_is_noticed() -> None:
    """A file, a function, a method of another class, and a function without a file are noticed."""
    assert missing("`pools/returns.py` `_put_back()`, `TakesBack._put_back()`") == []
    assert missing("`pools/gone.py`") == ["pools/gone.py"]
    assert missing("`pools/returns.py` `put_back()`") == ["returns.py put_back()"]
    assert missing("`pools/returns.py` `FairPool.dispose()`") == ["returns.py FairPool.dispose()"]
    assert missing("`_put_back()`") == ["_put_back()"]
