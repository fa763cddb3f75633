"""The location of a database, and this user's permissions there."""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
from collections.abc import Iterator

from ..files.location import SIDE_FILES
from ..system.mounts import Mount, find_mount
from .findings import Finding, Severity, Subject


def check_place(subject: Subject, *, wal: bool) -> Iterator[Finding]:
    """Find problems with the file system, the directory and the permissions."""
    mount = find_mount(subject.file)
    if mount is not None:
        yield from _check_mount(subject, mount, wal=wal)
    yield from _check_permissions(subject, mount)


def is_doubtful(subject: Subject) -> bool:
    """Return whether WAL is refused on the file system of the database."""
    mount = find_mount(subject.file)
    return mount is not None and mount.doubt is not None


def _check_mount(subject: Subject, mount: Mount, *, wal: bool) -> Iterator[Finding]:
    if mount.doubt is not None:
        yield Finding(
            "file-system",
            Severity.ERROR if wal else Severity.WARNING,
            f"{subject.path} is on {mount}, "
            + ("where WAL cannot be relied on: " if wal else "where locks may fail: ")
            + mount.doubt,
            f"{subject.command('backup', '/a/local/directory/copy.db')} on the one machine that "
            "uses it, and use the copy",
        )
    if mount.point == subject.file:
        yield Finding(
            "mounted-alone",
            Severity.ERROR,
            f"{subject.path} is itself a mount point, so its log or journal is kept elsewhere, and "
            "what was committed last goes with that when the container does",
            f"mount {shlex.quote(os.path.dirname(subject.path) or '.')} instead",
        )


def _check_permissions(subject: Subject, mount: Mount | None) -> Iterator[Finding]:
    directory = os.path.dirname(subject.file)
    if mount is not None and mount.read_only:
        yield Finding(
            "read-only-mount",
            Severity.ERROR,
            f"{subject.path} is on {mount}, read-only: SQLite keeps the log or journal beside the "
            "database",
            f"mount -o remount,rw {shlex.quote(mount.point)}",
        )
        return
    if not os.access(directory, os.W_OK | os.X_OK):
        yield Finding(
            "read-only-directory",
            Severity.ERROR,
            f"the directory {directory} is not writable by this user ({_me()}; it is "
            f"{_rights(directory)}): SQLite keeps the log or journal beside the database",
            f"chmod u+wx {shlex.quote(directory)}, as its owner",
        )
    for file in (subject.file, *_there(subject.file)):
        if not os.access(file, os.R_OK | os.W_OK):
            yield Finding(
                "read-only-file",
                Severity.ERROR,
                f"{file} may not be read and written by this user ({_me()}; it is {_rights(file)})",
                f"chmod u+rw {shlex.quote(file)}, as its owner",
            )


def check_owners(subject: Subject) -> Iterator[Finding]:
    """Find logs that the owner of the database cannot write to."""
    database = os.stat(subject.file)
    for file in _there(subject.file):
        try:
            beside = os.stat(file)
        except OSError:  # the last connection has removed it
            continue
        if beside.st_uid != database.st_uid and not _may_write(database, beside):
            yield Finding(
                "owner",
                Severity.ERROR,
                f"{file} is {_rights(file)}, and {subject.path} is {_rights(subject.file)}: a "
                "program of the database's owner cannot open it any more; it was made by "
                "another user's program, for example root's",
                f"chown --reference={shlex.quote(subject.argument)} {shlex.quote(file)}",
            )


@contextlib.contextmanager
def owners_kept(subject: Subject) -> Iterator[None]:
    """Restore the owners of the files beside the database after the block.

    "If this process is running as root, make sure that the SHM file is owned by the same user that
    owns the original database" (unixOpenSharedMemory() in SQLite's os_unix.c).
    """
    before = {file: os.stat(file) for file in _there(subject.file)}
    try:
        yield
    finally:
        for file, then in before.items():
            with contextlib.suppress(OSError):  # the last connection has removed it
                now = os.stat(file)
                if os.path.samestat(now, then) and now.st_uid != then.st_uid:
                    os.chown(file, then.st_uid, then.st_gid)


def _may_write(owner: os.stat_result, file: os.stat_result) -> bool:
    """Return whether the owner of the database may write to the other file, or is root."""
    by_group = owner.st_gid == file.st_gid and file.st_mode & stat.S_IWGRP
    return bool(owner.st_uid == 0 or by_group or file.st_mode & stat.S_IWOTH)


def _there(file: str) -> list[str]:
    return [beside for side in SIDE_FILES if os.path.exists(beside := f"{file}{side}")]


def _me() -> str:
    return _user(os.geteuid()) if hasattr(os, "geteuid") else os.environ.get("USERNAME", "?")


def _rights(path: str) -> str:
    """Return a text such as ``-rw-r--r-- of www-data``."""
    found = os.stat(path)
    return f"{stat.filemode(found.st_mode)} of {_user(found.st_uid)}"


def _user(number: int) -> str:
    try:
        import pwd  # noqa: PLC0415 - there is none on Windows

        return pwd.getpwuid(number).pw_name
    except (ImportError, KeyError):
        return f"user {number}"
