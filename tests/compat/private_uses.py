"""The non-public names of other libraries that the package uses, found in its source."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from functools import cache
from types import ModuleType

import sa_sqlite_pool

_NAME = sa_sqlite_pool.__name__
_ONESELF = {"self", "cls"}


def is_private(name: str) -> bool:
    return name.startswith("_") and name.isidentifier() and not name.endswith("_")


@cache
def modules() -> tuple[ModuleType, ...]:
    """Return all modules of the package."""
    found = pkgutil.walk_packages(sa_sqlite_pool.__path__, f"{_NAME}.")
    return (sa_sqlite_pool, *(importlib.import_module(one.name) for one in found))


# Names that one module of the package defines for another; and documented ones of named tuples.
OWN = {"_assert_open", "_file_before", "_held", "_keeper", "_to_end"}
DOCUMENTED = {"_replace"}


def _given_in(*trees: ast.AST) -> Iterator[str]:
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in _ONESELF:
                yield node.attr
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__slots__":
            constants = [one for one in ast.walk(node.value) if isinstance(one, ast.Constant)]
            yield from (str(one.value) for one in constants)


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (alias.name for alias in node.names)


def _reached_for(tree: ast.Module) -> Iterator[str]:
    """Yield attributes of objects other than ``self``, including ``super()`` and strings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            of = node.value.id if isinstance(node.value, ast.Name) else ""
            if of not in _ONESELF:
                yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value  # getattr(), and names passed as keywords
        elif isinstance(node, ast.keyword) and node.arg is not None:
            yield node.arg
        elif isinstance(node, ast.arguments):  # options of the function that this one replaces
            both = [*node.posonlyargs, *node.args]
            optional = both[len(both) - len(node.defaults) :]
            yield from (one.arg for one in (*optional, *node.kwonlyargs))


@cache
def _class_trees(module: str) -> dict[str, ast.ClassDef]:
    """Return the classes of a module's source; none if it is written in C."""
    try:
        source = inspect.getsource(sys.modules[module])
    except (OSError, TypeError):
        return {}
    return {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}


@cache
def _names_of(kind: type) -> frozenset[str]:
    """Return the names of another library's class: attributes, and those its methods assign."""
    tree = _class_trees(kind.__module__).get(kind.__name__)
    return frozenset({*vars(kind), *(() if tree is None else _given_in(tree))})


def _inherited(module: ModuleType) -> Iterator[str]:
    """Yield names that classes of the package use or override from bases in other libraries."""
    for name, tree in _class_trees(module.__name__).items():
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in _ONESELF
        } | set(_given_in(tree))
        for base in getattr(module, name).__mro__:
            if not base.__module__.startswith(_NAME) and base is not object:
                yield from used & _names_of(base)


@cache
def private_uses() -> dict[str, set[str]]:
    """Return the private names of other libraries, by the modules of the package that use them."""
    found = {}
    for module in modules():
        tree = ast.parse(inspect.getsource(module))
        strange = {*_imported(tree), *_reached_for(tree)} - {*_given_in(tree), *OWN, *DOCUMENTED}
        names = set(filter(is_private, strange | set(_inherited(module))))
        if names:
            found[module.__name__.removeprefix(f"{_NAME}.")] = names
    return found
