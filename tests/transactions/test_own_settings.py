"""Settings of a connection for which the package and the application need different values."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sa_sqlite_pool import ConfigurationError, ForbiddenWriteError
from sa_sqlite_pool.execution.replies import execute_at_once
from sa_sqlite_pool.settings import Role
from sa_sqlite_pool.sqlite.authorizer import Access, Authorizer
from sa_sqlite_pool.sqlite.statements import classify
from sa_sqlite_pool.transactions.own_settings import OwnSettings
from sa_sqlite_pool.transactions.rules import Rules

from .rules import rules_of


class Settings:
    """A connection to its file with an authorizer, and ways to execute statements on it."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None, timeout=0)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("CREATE TABLE IF NOT EXISTS items (id)")
        self.authorizer = Authorizer()
        self.connection.set_authorizer(self.authorizer)
        self.own = OwnSettings(self.authorizer)
        self.file: str | None = str(path)

    def rules(self, role: Role) -> Rules:
        return rules_of(role, self, file=self.file)

    def run(self, sql: str, role: Role = Role.AUTO, *, set_up: bool = False) -> list[Any]:
        """Execute ``sql`` like a statement of the application, and return its rows."""
        execute = self.own.execution(
            *(sql, classify(sql), self.rules(role), role, execute_at_once), set_up=set_up
        )
        return execute(self.connection, sql, ()).rows

    def real(self, pragma: str) -> Any:
        """Return the value that SQLite itself has."""
        return self.connection.execute(f"PRAGMA {pragma}").fetchone()[0]


@pytest.fixture
def settings(path: Path) -> Iterator[Settings]:
    settings = Settings(path)
    yield settings
    settings.connection.close()


@pytest.mark.parametrize(("role", "expected"), [(Role.READER, 7000), (Role.WRITER, 5000)])
def test_the_busy_timeout_that_the_application_finds(
    settings: Settings, role: Role, expected: int
) -> None:
    """It is the package's time limit, until the application sets another value."""
    assert settings.run("PRAGMA busy_timeout", role) == [(expected,)]
    settings.own.switch_off_waiting(settings.connection)
    assert settings.run("PRAGMA busy_timeout = 123", role) == [(123,)]
    settings.own.switch_off_waiting(settings.connection)
    assert settings.run("PRAGMA main . busy_timeout -- asked", role) == [(123,)]


def test_sqlite_itself_waits_for_nothing(settings: Settings) -> None:
    """A statement that switches it on is noticed, and it is switched off again."""
    settings.run("PRAGMA busy_timeout = 123")
    assert settings.authorizer.busy_timeout
    settings.own.switch_off_waiting(settings.connection)
    assert settings.real("busy_timeout") == 0
    assert not settings.authorizer.busy_timeout


@pytest.mark.parametrize("own", [None, 123])
def test_the_busy_timeout_while_the_raw_connection_is_lent(
    settings: Settings, own: int | None
) -> None:
    """SQLite itself waits meanwhile; a value set there, in either way, is remembered."""
    settings_own, connection = settings.own, settings.connection
    rules = settings.rules(Role.AUTO)
    if own is not None:
        settings.run(f"PRAGMA busy_timeout = {own}")
    expected = 5000 if own is None else own
    settings_own.lend(connection, rules, Role.AUTO)
    assert settings.real("busy_timeout") == expected
    assert settings.run("PRAGMA busy_timeout") == [(expected,)]
    settings_own.take_back(connection)
    assert settings.real("busy_timeout") == 0
    assert settings.run("PRAGMA busy_timeout") == [(expected,)]
    settings_own.switch_off_waiting(connection)
    for value, statement in ((7, True), (8, False)):
        settings_own.lend(connection, rules, Role.AUTO)
        sql = f"PRAGMA busy_timeout = {value}"
        settings.run(sql) if statement else connection.execute(sql)
        assert settings.real("busy_timeout") == value
        settings_own.take_back(connection)
        assert settings.real("busy_timeout") == 0
        assert settings.run("PRAGMA busy_timeout") == [(value,)]
        settings_own.switch_off_waiting(connection)
    other = rules_of(Role.AUTO, settings, write_timeout=9.0, read_timeout=9.0)
    settings_own.lend(connection, other, Role.AUTO)
    assert settings.real("busy_timeout") == 8
    connection.execute("PRAGMA busy_timeout = 50")
    assert settings.run("PRAGMA busy_timeout") == [(50,)]


def test_what_nobody_has_set_is_not_remembered(settings: Settings) -> None:
    """It is the engine's time limit, which may be a different one next time."""
    own, connection = settings.own, settings.connection
    own.lend(connection, settings.rules(Role.AUTO), Role.AUTO)
    own.take_back(connection)
    other = rules_of(Role.AUTO, settings, write_timeout=9.0, read_timeout=9.0)
    own.lend(connection, other, Role.AUTO)
    assert settings.real("busy_timeout") == 9000


def test_the_query_only_of_the_application(settings: Settings) -> None:
    """It is suspended while the connection is a reader, and restored afterwards."""
    own, connection = settings.own, settings.connection
    settings.run("PRAGMA query_only = 1")
    own.set_read_only(connection, True)
    settings.run("PRAGMA query_only = 0", Role.READER)
    assert settings.run("PRAGMA query_only", Role.READER) == [(0,)]
    assert settings.real("query_only") == 1
    own.set_read_only(connection, False)
    assert settings.real("query_only") == 0
    settings.run("PRAGMA query_only = ON")
    for wanted in (True, True, False):
        own.set_read_only(connection, wanted)
        assert settings.real("query_only") == 1
        assert own.read_only is wanted


def test_a_switch_that_was_stopped_is_made_again(settings: Settings) -> None:
    """The connection counts as neither read-only nor set by the application in between."""

    class StoppedError(Exception):
        pass

    class Stops:
        def execute(self, sql: str) -> sqlite3.Cursor:
            cursor = settings.connection.execute(sql)
            if "=" in sql:
                raise StoppedError
            return cursor

        def __getattr__(self, name: str) -> object:
            return getattr(settings.connection, name)

    with pytest.raises(StoppedError):
        settings.own.set_read_only(Stops(), True)  # type: ignore[arg-type]
    assert settings.own.read_only is None
    settings.own.set_read_only(settings.connection, True)
    settings.own.set_read_only(settings.connection, False)
    assert settings.real("query_only") == 0


@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA journal_mode = WAL",
        "PRAGMA journal_mode(wal)",
        "PRAGMA main.journal_mode = 'wal' -- as the engine has it",
        "PRAGMA journal_mode",
        "PRAGMA locking_mode = NORMAL",
        "PRAGMA other.journal_mode = DELETE",
    ],
)
def test_a_listener_sets_what_is_set_already(settings: Settings, sql: str) -> None:
    """The usual values stay unchanged; settings of attached files are not restricted."""
    settings.connection.execute("ATTACH ':memory:' AS other")
    settings.run(sql, set_up=True)
    assert settings.real("journal_mode") == "wal"


@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA journal_mode = DELETE",
        "PRAGMA /* ours */ main.journal_mode(TRUNCATE);",
        "PRAGMA locking_mode = EXCLUSIVE",
    ],
)
def test_a_listener_that_decides_for_all_is_refused(settings: Settings, sql: str) -> None:
    """The error names the way out; the application itself may do it, at its own risk."""
    with pytest.raises(ConfigurationError, match="all connections to a file must agree") as caught:
        settings.run(sql, set_up=True)
    assert ("pragmas=" in str(caught.value)) is ("journal_mode" in sql)
    assert (settings.real("journal_mode"), settings.real("locking_mode")) == ("wal", "normal")
    settings.run(sql)
    assert (settings.real("journal_mode"), settings.real("locking_mode")) != ("wal", "normal")


def test_in_memory_there_is_nothing_to_agree_on(settings: Settings) -> None:
    """In memory, SQLite has the journal mode "memory", whatever is set."""
    settings.file = None
    settings.run("PRAGMA journal_mode = MEMORY", set_up=True)


def test_optimize_on_a_reader_has_nothing_to_do(settings: Settings, path: Path) -> None:
    """Listeners execute it on any connection; other errors are raised."""
    settings.connection.executescript(
        "CREATE INDEX by_id ON items (id); INSERT INTO items VALUES (1), (2); ANALYZE;"
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 9999) "
        "INSERT INTO items SELECT i FROM n;"
    )
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)) as ro:
        settings.connection.close()
        settings.connection = ro
        ro.execute("SELECT count(*) FROM items WHERE id = 3").fetchall()  # uses its statistics
        assert settings.run("PRAGMA optimize(0x10002)", Role.READER) == []
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            settings.run("PRAGMA optimize(0x10002)", Role.AUTO)
        with pytest.raises(sqlite3.OperationalError, match="unknown database"):
            settings.run("PRAGMA nowhere.optimize", Role.READER)


def test_a_reader_attaches_for_reading(settings: Settings, tmp_path: Path) -> None:
    """The same statement works as on a writer; only writes are refused."""
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE others (id)")
    settings.authorizer.access = Access.READER
    settings.run(f"ATTACH '{tmp_path}/other.db' AS other", Role.READER)
    assert not settings.own.attached_for_writing
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        settings.connection.execute("DELETE FROM other.others")
    assert settings.authorizer.access is Access.READER


def test_a_reader_attaches_no_file_that_is_not_there(settings: Settings, tmp_path: Path) -> None:
    """A form that is not recognized is left to the authorizer."""
    settings.authorizer.access = Access.READER
    with pytest.raises(ForbiddenWriteError, match="let the writer attach it first"):
        settings.run(f"ATTACH '{tmp_path}/new.db' AS new", Role.READER)
    with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
        settings.run(f"ATTACH '{tmp_path}/new.db' AS new KEY 'x'", Role.READER)
    assert settings.authorizer.denied == "ATTACH or VACUUM INTO"
    assert not (tmp_path / "new.db").exists()


def test_the_expression_of_an_attach_is_computed_as_a_reader(settings: Settings) -> None:
    """It may call functions, which must not do anything that a reader must not."""
    connection = settings.connection

    def sly() -> str:
        connection.execute("PRAGMA query_only = 0")
        return ""

    connection.create_function("sly", 0, sly)
    settings.own.set_read_only(connection, True)
    settings.authorizer.access = Access.READER
    with pytest.raises(sqlite3.OperationalError, match="raised exception"):
        settings.run("ATTACH sly() AS new", Role.READER)
    assert settings.authorizer.denied == "PRAGMA query_only = 0"
    assert settings.real("query_only") == 1


def test_what_a_listener_attaches_by_itself_is_seen(settings: Settings, tmp_path: Path) -> None:
    """If it does so on the raw connection, the file is attached again for the application."""
    settings.connection.execute("ATTACH ? AS other", (str(tmp_path / "other.db"),))
    assert settings.own.attached_for_writing
    settings.authorizer.application = lambda *_: sqlite3.SQLITE_DENY
    settings.own.attach_again_read_only(settings.connection)
    settings.authorizer.application = None
    assert not settings.own.attached_for_writing
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        settings.connection.execute("CREATE TABLE other.others (id)")
