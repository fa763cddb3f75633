"""Files beside a database that no longer belong to it, or that were left unfinished."""

from __future__ import annotations

import glob
import os
import shlex
from collections.abc import Iterator

from ..backup.restoring import DAMAGED
from ..files.location import SIDE_FILES, TURN_FILES
from ..files.log_file import measure
from ..files.neighbours import locks_on
from ..publishing import addresses
from ..system.atomic_file import SUFFIX
from ..system.proc_locks import identity, locks
from .findings import Finding, Severity, Subject
from .header import Header, has_transaction


def check_beside_missing(subject: Subject) -> Iterator[Finding]:
    """Find the files of a database that is missing or empty; yield nothing if there are none."""
    if any(locks_on(subject.file)):  # a process is about to create it
        return
    left = [side for side in SIDE_FILES if os.path.exists(f"{subject.file}{side}")]
    if with_content := [side for side in left if _has_content(f"{subject.file}{side}", side)]:
        names = [subject.beside(side) for side in with_content]
        yield Finding(
            "database-missing",
            Severity.ERROR,
            f"there is {' and '.join(names)}, and {_gone(subject)}: what was committed last may be "
            "in there, and SQLite deletes it when a database of that name is used",
            f"put the database that it belongs to back beside it, or move it away: {_move(names)}",
        )
    elif left:
        what = "which is empty or an index only"
        yield Finding("left-behind", Severity.WARNING, *_of_no_use(subject, left, what))
    if not os.path.exists(subject.file):  # otherwise, opening the database uses or removes these
        own = [side for side in TURN_FILES if os.path.exists(f"{subject.file}{side}")]
        sockets = [path.removeprefix(subject.file) for path in addresses.stale(subject.file)]
        if own:
            what = "which processes that write take turns with"
            yield Finding("lock-files", Severity.WARNING, *_of_no_use(subject, own, what))
        if sockets:
            what = "at which a process that was killed could be asked for its statistics"
            yield Finding("status-sockets", Severity.WARNING, *_of_no_use(subject, sockets, what))
    yield from check_copies(subject)


def _of_no_use(subject: Subject, sides: list[str], what: str) -> tuple[str, str]:
    """Return the message, and the command that removes the files."""
    paths = [subject.beside(side) for side in sides]
    message = f"there is {' and '.join(paths)}, {what}, and {_gone(subject)}"
    return message, shlex.join(["rm", *paths])


def _gone(subject: Subject) -> str:
    return f"nothing in {subject.path}" if os.path.exists(subject.file) else f"no {subject.path}"


def _has_content(path: str, side: str) -> bool:
    return side != "-shm" and os.path.getsize(path) > 0


def check_beside(subject: Subject, header: Header | None) -> Iterator[Finding]:
    """Find logs and journals that do not belong to the database, or are not yet applied to it."""
    if header is not None and (page_size := measure(f"{subject.file}-wal").page_size):
        yield from _check_log(subject, header, page_size)
    if is_hot(subject):
        yield Finding(
            "hot-journal",
            Severity.ERROR,
            f"{subject.file}-journal has a transaction that was interrupted, by a crash or a copy "
            "taken meanwhile: without it the database is corrupt, so keep them together. The "
            "content was not examined, since reading it would roll the transaction back",
            subject.sql("SELECT count(*) FROM sqlite_master"),
        )
    yield from check_copies(subject)


def is_hot(subject: Subject) -> bool:
    """Return whether the next reader has to roll back a transaction.

    "The rollback journal is a 'hot' journal … if it exists, its size is greater than 512 bytes,
    and the journal header is non-zero and well-formed … There is no RESERVED lock on the main
    database file" (https://www.sqlite.org/lockingv3.html#hot_journals).
    """
    in_use = {"reserved", "pending", "exclusive"}
    return has_transaction(f"{subject.file}-journal") and not any(
        name in in_use for _, name in locks_on(subject.file)
    )


def _check_log(subject: Subject, header: Header, page_size: int) -> Iterator[Finding]:
    # "If there is a WAL file in the file-system, open this database in WAL mode", whatever its
    # header says (pagerOpenWalIfPresent() in SQLite's pager.c): the frames hide its pages.
    if page_size != header.page_size:
        why = f"its pages are of {page_size} bytes, and those of the database of {header.page_size}"
    elif not header.wal:
        why = "the database is not in WAL mode, and the log of one that leaves that mode is removed"
    else:
        return
    log = [subject.beside(side) for side in ("-wal", "-shm")]
    yield Finding(
        "foreign-log",
        Severity.ERROR,
        f"{log[0]} is the log of another database: {why}. SQLite would apply it to this one, and "
        "corrupt it. The content was not read",
        f"before anything opens the database, move the log away: {_move(log)}",
    )


def check_copies(subject: Subject) -> Iterator[Finding]:
    """Find the files that backups and restores have left behind."""
    directory, name = os.path.split(subject.file)
    given = os.path.dirname(subject.beside(""))
    locked = {lock.file for lock in locks() if lock.family == "FLOCK"}
    for found in sorted(glob.glob(f"{glob.escape(name)}*{SUFFIX}", root_dir=directory)):
        file = os.path.join(directory, found)
        # Otherwise it is being written, or is a database in use, which such a copy never is.
        if identity(file) not in locked and not _is_used(file):
            path = os.path.join(given, found)
            yield Finding(
                "unfinished-copy",
                Severity.WARNING,
                f"{path} was left by a backup or a restore that was killed; it is useless",
                shlex.join(["rm", path]),
            )
    if os.path.exists(f"{subject.file}{DAMAGED}"):
        path = subject.beside(DAMAGED)
        yield Finding(
            "damaged-copy",
            Severity.INFO,
            f"{path} is a database that SQLite could not read when it was replaced by a backup",
            f"{shlex.join(['rm', path])}, once nothing in it is needed",
        )


def _is_used(file: str) -> bool:
    sides = (*SIDE_FILES, *TURN_FILES)
    return any(os.path.exists(f"{file}{side}") for side in sides) or any(locks_on(file))


def _move(paths: list[str]) -> str:
    return "; ".join(
        shlex.join(["mv", path, f"{path}.old"]) for path in paths if os.path.exists(path)
    )
