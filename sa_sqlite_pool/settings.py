"""Options, which are validated when they are set."""

from __future__ import annotations

import difflib
import enum
import inspect
import re
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, TypeVar

from .errors import ConfigurationError

E = TypeVar("E", bound=enum.Enum)


def choose(kind: type[E], option: str, value: object) -> E:
    """Return the member of ``kind`` with the given value, or raise :class:`ConfigurationError`."""
    try:
        return kind(value)
    except ValueError:
        names = ", ".join(repr(one.value) for one in kind)
        raise ConfigurationError(f"{option} must be one of {names}, not {value!r}") from None


class Role(enum.Enum):
    """The purpose of a connection or session."""

    AUTO = "auto"
    READER = "reader"
    WRITER = "writer"

    __hash__ = object.__hash__  # by identity, in C: enum.Enum's own is a function in Python

    @classmethod
    def parse(cls, option: str, value: object) -> Role:
        """Return the role ``value``, or raise :class:`ConfigurationError` about ``option``."""
        return choose(cls, option, value)


class Placement(enum.Enum):
    """Where statements run."""

    AUTO = "auto"
    """Statements known to be short run inline, on the event loop itself; all others in a thread."""
    THREAD = "thread"
    INLINE = "inline"
    """All statements run inline, however long: for a program whose loop has nothing else to do."""

    @classmethod
    def parse(cls, value: object) -> Placement:
        """Return the placement named ``value``, or raise :class:`ConfigurationError`."""
        return choose(cls, "placement", value)


DEFAULT_PLACEMENT = "auto"

PragmaValue = str | int | bool
OnConnect = Callable[[sqlite3.Connection], None]
"""Called once for each new connection, in the connection's own thread, with the ``sqlite3``
connection: to create functions, collations, temp tables and triggers. They persist until the
connection is closed, across any number of checkouts."""


def _one_of(*words: str, numbered: bool = True) -> Callable[[PragmaValue], str]:
    """Return a check for one of ``words``, or for its number if SQLite numbers them."""

    def check(value: PragmaValue) -> str:
        word = str(value).upper()
        if numbered and word.isdecimal() and int(word) < len(words):
            word = words[int(word)]
        if word not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return word

    return check


def _switch(value: PragmaValue) -> str:
    word = str(value).upper()
    if word in {"1", "TRUE", "ON", "YES"}:
        return "ON"
    if word in {"0", "FALSE", "OFF", "NO"}:
        return "OFF"
    raise ValueError("True or False")


def _number(lowest: int | None = None) -> Callable[[PragmaValue], str]:
    def check(value: PragmaValue) -> str:
        wanted = "a whole number" if lowest is None else f"a whole number of at least {lowest}"
        if isinstance(value, bool) or not re.fullmatch(r"-?\d+", str(value)):
            raise ValueError(wanted)
        if lowest is not None and int(value) < lowest:
            raise ValueError(wanted)
        return str(int(value))

    return check


def _page_size(value: PragmaValue) -> str:
    sizes = [str(2**power) for power in range(9, 17)]
    if str(value) not in sizes:
        raise ValueError(f"one of {', '.join(sizes)}")
    return str(value)


# PRAGMAs that configure a connection or file when it is opened: https://www.sqlite.org/pragma.html
_PRAGMAS: Mapping[str, Callable[[PragmaValue], str]] = {
    "analysis_limit": _number(0),
    "auto_vacuum": _one_of("NONE", "FULL", "INCREMENTAL"),
    "automatic_index": _switch,
    "cache_size": _number(),
    "cache_spill": _switch,
    "case_sensitive_like": _switch,
    "cell_size_check": _switch,
    "foreign_keys": _switch,
    "hard_heap_limit": _number(0),
    "journal_mode": _one_of("DELETE", "TRUNCATE", "PERSIST", "WAL", numbered=False),
    "journal_size_limit": _number(-1),
    "mmap_size": _number(0),
    "page_size": _page_size,
    "recursive_triggers": _switch,
    "reverse_unordered_selects": _switch,
    "secure_delete": _one_of("OFF", "ON", "FAST"),
    "soft_heap_limit": _number(0),
    "synchronous": _one_of("OFF", "NORMAL", "FULL", "EXTRA"),
    "temp_store": _one_of("DEFAULT", "FILE", "MEMORY"),
    "threads": _number(0),
    "trusted_schema": _switch,
    "wal_autocheckpoint": _number(0),
}

_REMEDIES = {
    "busy_timeout": "set write_timeout and read_timeout instead: this package does the waiting",
    "query_only": "use a reader: it cannot write",
}

DEFAULT_PRAGMAS: Mapping[str, PragmaValue] = MappingProxyType(
    {
        "journal_mode": "WAL",
        "synchronous": "NORMAL",
        "foreign_keys": True,
        "cache_size": -16 * 1024,  # KiB, as https://www.sqlite.org/pragma.html#pragma_cache_size
        "temp_store": "MEMORY",
        "journal_size_limit": 64 * 1024 * 1024,  # bytes
    }
)

# Data and migrations of an application that swaps the pool in were created without enforced foreign
# keys, unless it enforces them itself: writes would start to fail, and a batch migration that drops
# a parent table would delete its children.
SWAP_IN_PRAGMAS: Mapping[str, PragmaValue] = MappingProxyType(
    {name: value for name, value in DEFAULT_PRAGMAS.items() if name != "foreign_keys"}
)


class NotGiven(enum.Enum):
    """The type of the default of an option for which None has its own meaning."""

    NOT_GIVEN = enum.auto()


NOT_GIVEN = NotGiven.NOT_GIVEN

DEFAULT_TIMEOUT = 30.0
DEFAULT_IDLE_WARNING = 10.0
DEFAULT_SLOW_WAIT_WARNING = 1.0
DEFAULT_CACHED_STATEMENTS = 512


def check_pragma(name: str, value: PragmaValue) -> str:
    """Return the value in SQLite's spelling; raise :class:`ConfigurationError` if it is invalid."""
    check = _PRAGMAS.get(name)
    if check is None:
        raise ConfigurationError(f"unknown pragma {name!r}: {_remedy(name)}")
    try:
        return check(value)
    except ValueError as error:
        raise ConfigurationError(f"pragma {name} must be {error}, not {value!r}") from None


def merge_pragmas(
    defaults: Mapping[str, PragmaValue], pragmas: Mapping[str, PragmaValue] | None
) -> dict[str, PragmaValue]:
    """Return ``defaults``, overridden by the user's values."""
    if pragmas is not None and not isinstance(pragmas, Mapping):
        raise ConfigurationError(
            f'pragmas must be a mapping such as {{"synchronous": "FULL"}}, not {pragmas!r}'
        )
    return {**defaults, **_safe_without_wal(pragmas or {}), **(pragmas or {})}


def _safe_without_wal(pragmas: Mapping[str, PragmaValue]) -> dict[str, PragmaValue]:
    # "WAL mode is always consistent with synchronous=NORMAL", while with a rollback journal "there
    # is a very small […] chance that a power failure at just the wrong time could corrupt the
    # database": https://www.sqlite.org/pragma.html#pragma_synchronous
    if str(pragmas.get("journal_mode", "WAL")).upper() == "WAL":
        return {}
    return {"synchronous": "FULL"}


def _remedy(name: str) -> str:
    if name in _REMEDIES:
        return _REMEDIES[name]
    close = difflib.get_close_matches(str(name).lower(), _PRAGMAS, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return "run it in an on_connect function if SQLite knows it"


LONGEST_SECONDS = 2_147_483.0
"""The longest timeout, 24 days: SQLite's busy timeout is a C int of milliseconds
(https://www.sqlite.org/c3ref/busy_timeout.html), and the limit for timers of threads and loops is
little higher on some systems."""


def wrong_type_of_url(given: object, kinds: str) -> ConfigurationError:
    """Return the error for a URL of another type than ``kinds``, such as pydantic's DSNs.

    It does not contain the URL, in which there may be a password.
    """
    secret = hasattr(given, "get_secret_value")
    remedy = "pass what its get_secret_value() returns" if secret else "pass str() of it"
    return ConfigurationError(
        f"the URL has the type {type(given).__name__}; it must be {kinds}: {remedy}"
    )


def check_timeout(name: str, seconds: float) -> float:
    """Return ``seconds`` as a float; raise :class:`ConfigurationError` unless it is a number ≥ 0.

    Return :data:`LONGEST_SECONDS` for larger values, including infinity.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds >= 0:
        raise ConfigurationError(f"{name} must be a number of seconds ≥ 0, not {seconds!r}")
    return float(min(seconds, LONGEST_SECONDS))


def check_limit(name: str, seconds: float | None) -> float | None:
    """Return ``seconds`` as a float, or None for no limit; or raise :class:`ConfigurationError`."""
    return None if seconds is None else check_timeout(name, seconds)


def check_count(name: str, count: int) -> int:
    """Return ``count``; raise :class:`ConfigurationError` unless it is a whole number ≥ 1."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigurationError(f"{name} must be a whole number of at least 1, not {count!r}")
    return count


_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class WalSettings:
    """How large the write-ahead log may grow, and what this may cost readers.

    :param soft_limit: bytes. Above it, a checkpoint writes the log to the database and truncates
        it as soon as there is no writer. None leaves the log to SQLite's own ``wal_autocheckpoint``
    :param hard_limit: bytes. From half of it on (never below ``soft_limit``), a checkpoint does not
        wait for a quiet moment; at the limit readers make room, too. None: they never have to
    :param reader_gap: seconds that new read transactions may wait for running ones to end, so that
        the log can be truncated; a gap ends as soon as they have ended, and after twice that time
        at the latest. 0: readers never wait
    :param max_snapshot_age: seconds. At the hard limit, an older read transaction is ended, and its
        next statement raises :class:`~sa_sqlite_pool.SnapshotTooOldError`, unless it was declared
        long. None: it is named in a warning and continues
    """

    soft_limit: int | None = 16 * _MIB
    hard_limit: int | None = 64 * _MIB
    reader_gap: float = 0.5
    max_snapshot_age: float | None = None

    def __post_init__(self) -> None:
        for name in ("soft_limit", "hard_limit"):
            if getattr(self, name) is not None:
                check_count(f"{name} of WalSettings, in bytes,", getattr(self, name))
        soft, hard = self.soft_limit, self.hard_limit
        if soft is not None and hard is not None and hard < soft:
            raise ConfigurationError(
                f"hard_limit of WalSettings must be at least soft_limit ({soft} bytes), not {hard}"
            )
        gap = check_timeout("reader_gap of WalSettings", self.reader_gap)
        object.__setattr__(self, "reader_gap", gap)
        age = check_limit("max_snapshot_age of WalSettings", self.max_snapshot_age)
        object.__setattr__(self, "max_snapshot_age", age)

    @property
    def largest(self) -> int | None:
        """The size of the log, in bytes, above which a commit no longer waits for the keeper."""
        if self.soft_limit is None:
            return None
        return 4 * self.soft_limit if self.hard_limit is None else 2 * self.hard_limit


DEFAULT_WAL_SETTINGS = WalSettings()


def check_wal_settings(wal: WalSettings | None) -> WalSettings:
    """Return ``wal``, or the defaults; raise :class:`ConfigurationError` for anything else."""
    if wal is None:
        return DEFAULT_WAL_SETTINGS
    if not isinstance(wal, WalSettings):
        raise ConfigurationError(f"wal must be a WalSettings, not {wal!r}")
    return wal


_NO_OPTIONS = frozenset({"pragmas_by_default", "write_timeout_given", "read_timeout_given"})

_LIMITS = ("statement_timeout", "idle_warning", "slow_wait_warning", "slow_statement_warning")


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """How each connection of an engine is opened and how long it waits.

    ``pragmas`` contains all PRAGMAs to set, validated and in SQLite's spelling;
    ``pragmas_by_default`` names those that the application has not given. Timeouts are in seconds,
    None for no limit. ``write_timeout_given`` and ``read_timeout_given`` say that the application
    has set these; if not, SQLite's busy timeout, which it may have set, applies if it is longer.
    """

    pragmas: Mapping[str, PragmaValue] = field(default_factory=dict)
    write_timeout: float = DEFAULT_TIMEOUT
    read_timeout: float = DEFAULT_TIMEOUT
    on_connect: OnConnect | None = None
    statement_timeout: float | None = None
    idle_warning: float | None = DEFAULT_IDLE_WARNING
    wal: WalSettings = field(default_factory=WalSettings)
    file_turn: bool = True
    placement: Placement = Placement.AUTO
    slow_wait_warning: float | None = DEFAULT_SLOW_WAIT_WARNING
    slow_statement_warning: float | None = None
    pragmas_by_default: frozenset[str] = frozenset()
    write_timeout_given: bool = True
    read_timeout_given: bool = True

    def options(self) -> dict[str, Any]:
        """Return the options for a pool with these settings, all of them explicit."""
        names = (field.name for field in fields(self))
        return {name: getattr(self, name) for name in names if name not in _NO_OPTIONS}

    def __post_init__(self) -> None:
        checked = {name: check_pragma(name, value) for name, value in self.pragmas.items()}
        object.__setattr__(self, "pragmas", MappingProxyType(checked))
        for name in ("write_timeout", "read_timeout"):
            object.__setattr__(self, name, check_timeout(name, getattr(self, name)))
        for name in _LIMITS:
            object.__setattr__(self, name, check_limit(name, getattr(self, name)))
        if self.on_connect is not None and not callable(self.on_connect):
            raise ConfigurationError(
                "on_connect must be a function that takes a sqlite3.Connection, not "
                f"{self.on_connect!r}"
            )
        if inspect.iscoroutinefunction(self.on_connect):
            raise ConfigurationError(
                f"on_connect must be a plain function, not {self.on_connect!r}: it receives a "
                "sqlite3.Connection, on which nothing can be awaited"
            )
        if not isinstance(self.file_turn, bool):
            raise ConfigurationError(f"file_turn must be True or False, not {self.file_turn!r}")


_LEADING_NUMBER = re.compile("0x[0-9a-f]+|[0-9]+")
_MOST_DIGITS = 10
_WORDS_FOR_ON = frozenset({"on", "yes", "true"})


def is_on(value: str) -> bool:
    """Return whether SQLite takes ``value``, in lower case, as on.

    SQLite uses the number at the beginning, of at most 32 bits, and of that the last eight bits
    (``getSafetyLevel()`` in its pragma.c, ``sqlite3GetInt32()`` in its util.c).
    """
    found = _LEADING_NUMBER.match(value)
    if found is None:
        return value in _WORDS_FOR_ON
    digits = found.group()
    if len(digits.lstrip("0x")) > _MOST_DIGITS:  # it counts as 0, and may have any length
        return False
    number = int(digits, 16 if "x" in digits else 10)
    return number < 2**31 and number & 0xFF != 0
