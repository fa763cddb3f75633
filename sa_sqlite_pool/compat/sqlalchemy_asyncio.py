"""Methods of SQLAlchemy's asyncio layer, bound to other functions and classes by the same names."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import CellType, FunctionType
from typing import Any, TypeVar

from sqlalchemy.util import greenlet_spawn as theirs

from .greenlets import greenlet_spawn

C = TypeVar("C", bound=type)


def in_greenlets_used_again(cls: C, instead: Mapping[Any, Any] | None = None) -> C:
    """Make the methods that ``cls`` inherits call our ``greenlet_spawn``, not SQLAlchemy's.

    They also use the values of ``instead`` in place of its keys. If a later SQLAlchemy calls the
    function in another way, the methods stay as they are.
    """
    replaced = {id(old): new for old, new in {theirs: greenlet_spawn, **(instead or {})}.items()}
    known = set(vars(cls))
    for origin in cls.__mro__[1:]:
        for name, member in vars(origin).items():
            if name in known:
                continue
            known.add(name)
            if type(member) is FunctionType:
                changed: Any = _calling(replaced, member)
            elif isinstance(member, classmethod) and type(member.__func__) is FunctionType:
                function = _calling(replaced, member.__func__)
                changed = member if function is member.__func__ else classmethod(function)
            else:
                continue
            if changed is not member:
                setattr(cls, name, changed)
    return cls


def _calling(replaced: Mapping[int, object], function: FunctionType) -> FunctionType:
    """Return a copy of ``function`` in which some global names refer to other objects.

    Return ``function`` itself if it uses none of them. The copy looks them up under this package's
    own names in the function's module: all other names remain the module's, even if they are
    changed later, or if the module is still being imported.
    """
    names, code = function.__globals__, function.__code__
    used = {name: id(names.get(name)) for name in code.co_names}
    renamed = {name: f"{__name__}.{name}" for name, object_ in used.items() if object_ in replaced}
    closure = _wrapping(replaced, function)
    if not renamed and closure is function.__closure__:
        return function
    for name, own in renamed.items():
        names[own] = replaced[used[name]]
    code = code.replace(co_names=tuple(renamed.get(name, name) for name in code.co_names))
    copy = FunctionType(code, names, function.__name__, function.__defaults__, closure)
    copy.__kwdefaults__ = function.__kwdefaults__
    functools.update_wrapper(copy, function)
    return copy


def _wrapping(
    replaced: Mapping[int, object], function: FunctionType
) -> tuple[CellType, ...] | None:
    """Return a function's closure; if it wraps another function, with the copy of that one."""
    closure = function.__closure__
    wrapped = getattr(function, "__wrapped__", None)
    if closure is None or type(wrapped) is not FunctionType:
        return closure
    copy = _calling(replaced, wrapped)
    if copy is wrapped:
        return closure
    return tuple(CellType(copy) if _holds(cell, wrapped) else cell for cell in closure)


def _holds(cell: CellType, what: object) -> bool:
    try:
        return cell.cell_contents is what
    except ValueError:  # the cell is empty
        return False
