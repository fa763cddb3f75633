"""The location of a database, from the arguments of the dialect for ``sqlite3.connect``."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode

from ..errors import DatabaseNotUsableError
from ..settings import is_on
from ..system.mounts import find_mount
from ..system.regular_files import check_directory

SIDE_FILES = ("-wal", "-shm", "-journal")
"""The suffixes of the files that SQLite keeps beside a database."""

TURN_FILES = ("-turn", "-line")
"""The suffixes of the files beside a database on which the processes that write wait in line."""


@dataclass(frozen=True)
class Location:
    """The location of a database: the ``path`` of its file, None in memory; URI ``parameters``.

    ``name`` is the URI's name for a database in memory, which connections may share. The real
    path, ``file``, is looked up once: see :meth:`looked_up_again`.
    """

    path: str | None
    name: str = ""
    parameters: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, database: str, *, uri: bool) -> Location:
        """Parse a file name, or an SQLite URI (https://www.sqlite.org/uri.html)."""
        if not uri or not database.startswith("file:"):
            return cls(None if database in {"", ":memory:"} else _absolute(database))
        # SQLite ignores a fragment, even after the path: sqlite3ParseUri() in its main.c.
        name, _, query = database.removeprefix("file:").partition("#")[0].partition("?")
        if name.startswith("//"):  # file://localhost/path and file:///path
            name = "/" + name.removeprefix("//").partition("/")[2]
        parameters = dict(parse_qsl(query, keep_blank_values=True))
        name = os.fsdecode(unquote_to_bytes(name))
        if name in {"", ":memory:"} or _in_memory(parameters):
            return cls(None, name, tuple(parameters.items()))
        return cls(_absolute(name), "", tuple(parameters.items()))

    @property
    def private(self) -> bool:
        """True if each connection would have a database of its own, in memory."""
        return self.path is None and not self.shares_cache

    @property
    def shares_cache(self) -> bool:
        """True if connections lock single tables, or a database in memory, against one another.

        "file:…?cache=shared" does so (https://www.sqlite.org/sharedcache.html), and "vfs=memdb".
        """
        parameters = dict(self.parameters)
        return parameters.get("cache") == "shared" or parameters.get("vfs") == "memdb"

    def looked_up_again(self) -> Location:
        """Return the same location; its real path is looked up again when it is needed."""
        return replace(self)

    @property
    def file(self) -> str | None:
        """The real path of the file; None in memory."""
        if self.path is None:
            return None
        # Not a cached_property: up to Python 3.11, it holds a lock shared by all instances, and a
        # file server that is gone would block them forever.
        found: str | None = vars(self).get("file")
        if found is None:
            found = vars(self)["file"] = os.path.realpath(self.path)
        return found

    def found_at(self, file: str) -> None:
        """Store the real path that the caller has looked up."""
        vars(self)["file"] = file

    @property
    def identity(self) -> str:
        """A string that is the same for every name of the same database."""
        return self.file or f"memory:{self.name}"

    @cached_property
    def label(self) -> str:
        """The name of the database in messages."""
        return os.path.basename(self.path) if self.path else (self.name or ":memory:")

    @cached_property
    def writable(self) -> bool:
        """True if the URI itself allows writing."""
        parameters = dict(self.parameters)
        immutable = is_on(parameters.get("immutable", "").lower())
        return parameters.get("mode") != "ro" and not immutable

    def has_pages(self) -> bool:
        """Return whether the file exists and is not empty."""
        try:
            return self.path is not None and os.stat(self.path).st_size > 0
        except OSError:
            return False

    def with_parameter(self, key: str, value: str) -> Location:
        return replace(self, parameters=tuple({**dict(self.parameters), key: value}.items()))

    @property
    def sqlite_uri(self) -> str:
        """The ``file:`` URI of a database file."""
        assert self.path is not None
        query = f"?{urlencode(self.parameters, quote_via=quote)}" if self.parameters else ""
        return f"file:{quote(os.fsencode(self.path))}{query}"  # paths need not be UTF-8

    def check(self) -> None:
        """Raise an error, before any write, if SQLite would report "unable to open"."""
        if self.path is None or (self.writable and _is_writable(self.path)):
            return
        path = Path(self.path)
        check_directory(path, "URL")
        if self.writable:
            _check_writable(path)


def _absolute(name: str) -> str:
    """Return the absolute path of a file.

    Two slashes at the beginning, whose meaning POSIX leaves open, become one: in a URI they would
    begin the name of a machine. ``f"sqlite+aiosqlite:////{path}"`` contains them.
    """
    path = str(Path(name).absolute())
    return path[1:] if path.startswith("//") else path


def _in_memory(parameters: dict[str, str]) -> bool:
    return parameters.get("mode") == "memory" or parameters.get("vfs") == "memdb"


def _is_writable(path: str) -> bool:
    """Return whether :func:`_check_writable` would raise nothing, with three system calls."""
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
    except OSError:  # for example, a file that does not exist yet
        return False
    directory = os.path.dirname(path)
    return (
        regular and os.access(path, os.R_OK | os.W_OK) and os.access(directory, os.W_OK | os.X_OK)
    )


def _check_writable(path: Path) -> None:
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise DatabaseNotUsableError(
            f"the directory {path.parent} is {_why_not_writable(path.parent)}, or open a copy "
            "that is never written to, with ?uri=true&mode=ro&immutable=1"
        )
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:  # it will be created
        return
    if not stat.S_ISREG(mode):
        raise DatabaseNotUsableError(f"{path} is not a regular file")
    if not os.access(path, os.R_OK | os.W_OK):
        raise DatabaseNotUsableError(
            f"{path} {_why_not_open_to_us(path)}, or open it with ?uri=true&mode=ro"
        )


def _why_not_writable(directory: Path) -> str:
    mounted = _mounted_read_only(directory)
    return (
        f"{mounted or 'not writable'}, and SQLite keeps the log or journal beside the database; "
        f"{'mount it writable' if mounted else 'make it writable by this user'}"
    )


def _why_not_open_to_us(file: Path) -> str:
    if mounted := _mounted_read_only(file):
        return f"is {mounted}; mount its directory writable"
    return "may not be read and written by this user; change its permissions"


def _mounted_read_only(path: Path) -> str | None:
    mount = find_mount(os.path.realpath(path))
    return f"mounted read-only ({mount})" if mount is not None and mount.read_only else None
