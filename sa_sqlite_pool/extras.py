"""The error of an import that needs an extra, which names the extra to install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imports_of_extra(extra: str, module: str) -> Iterator[None]:
    """Import what ``extra`` installs; if it is missing, say which part needs it, and what to run.

    The error stays a :class:`ModuleNotFoundError` with the name of the missing module.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{module} needs {error.name}, which is not installed: "
            f"pip install 'sa-sqlite-pool[{extra}]'",
            name=error.name,
            path=error.path,
        ) from error
