"""Combine a class of the application with one of this package."""

from __future__ import annotations

from functools import cache
from typing import Any

from ..compat.sqlalchemy_asyncio import in_greenlets_used_again


@cache
def composed(class_: Any, base: type, mixin: type) -> Any:
    """Return a class that inherits from both; always the same class for the same arguments.

    Return ``mixin`` itself if ``class_`` is ``base``. Attributes of ``class_`` take precedence, as
    if it had been derived from ``mixin`` instead of ``base``.
    """
    if class_ is base:
        return mixin
    return class_ if issubclass(class_, mixin) else derived(class_, mixin)


def derived(class_: type, *mixins: type, **attributes: Any) -> Any:
    """Return a class derived from all of these classes, with the name of the first.

    Methods of ``class_`` that call SQLAlchemy's ``greenlet_spawn`` reuse greenlets.
    """
    own = {"__module__": class_.__module__, "__doc__": class_.__doc__, **attributes}
    return in_greenlets_used_again(type(class_.__name__, (class_, *mixins), own))
