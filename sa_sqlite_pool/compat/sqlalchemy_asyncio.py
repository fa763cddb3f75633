"""Classes of SQLAlchemy's asyncio layer, with another ``greenlet_spawn``."""

from __future__ import annotations

import functools
import sys
from types import FunctionType
from typing import TypeVar

from .greenlets import greenlet_spawn

C = TypeVar("C", bound=type)


def in_greenlets_used_again(cls: C) -> C:
    """Make the methods that ``cls`` has from SQLAlchemy call our ``greenlet_spawn``, not its own.

    A method finds that function by its name in the module: here it gets a copy of the module's
    names. If a later SQLAlchemy calls it in another way, the methods stay as they are.
    """
    origin = cls.__bases__[0]
    names = {**vars(sys.modules[origin.__module__]), greenlet_spawn.__name__: greenlet_spawn}
    for name, method in vars(origin).items():
        if not isinstance(method, FunctionType) or name in vars(cls):
            continue
        if greenlet_spawn.__name__ in method.__code__.co_names:
            copy = FunctionType(
                method.__code__, names, name, method.__defaults__, method.__closure__
            )
            copy.__kwdefaults__ = method.__kwdefaults__
            setattr(cls, name, functools.update_wrapper(copy, method))
    return cls
