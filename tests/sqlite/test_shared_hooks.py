"""The application's authorizer and progress handler, alongside the package's."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from sa_sqlite_pool.sqlite.authorizer import Access, Authorizer
from sa_sqlite_pool.sqlite.shared_hooks import (
    ask_again,
    ask_instead,
    install_authorizer,
    own_progress_handler,
    sharing_hooks,
    watch_progress,
)

LONG = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 2000) "
    "SELECT max(i) FROM n"
)


def connect(base: type[sqlite3.Connection] = sqlite3.Connection) -> Any:
    factory: Any = sharing_hooks(base)  # type: ignore[arg-type]
    connection = sqlite3.connect(":memory:", isolation_level=None, factory=factory)
    connection.execute("CREATE TABLE items (id)")
    return connection


def forbid(wanted: int) -> Callable[..., int]:
    return lambda action, *_: sqlite3.SQLITE_DENY if action == wanted else sqlite3.SQLITE_OK


def runs(connection: sqlite3.Connection, sql: str) -> bool:
    try:
        connection.execute(sql).fetchall()
    except sqlite3.DatabaseError as error:
        if "not authorized" not in str(error) and "interrupted" not in str(error):
            raise
        return False
    return True


def test_a_class_of_the_application_is_kept() -> None:
    """``connect_args={"factory": ...}``: it gets one subclass, for any number of connections."""

    class Own(sqlite3.Connection):
        pass

    connection, another = connect(Own), connect(Own)
    assert isinstance(connection, Own)
    assert type(connection) is type(another)
    another.close()
    connection.close()


@pytest.mark.parametrize("guard_first", [True, False])
def test_the_application_forbids_as_before(guard_first: bool) -> None:
    """In either order, both are called, even for statements that are already compiled."""
    connection, authorizer = connect(), Authorizer()
    if guard_first:
        install_authorizer(connection, authorizer)
    assert runs(connection, "SELECT id FROM items")
    connection.set_authorizer(forbid(sqlite3.SQLITE_SELECT))
    if not guard_first:
        install_authorizer(connection, authorizer)
    authorizer.access = Access.NO_WRITES
    assert not runs(connection, "SELECT id FROM items")
    assert not runs(connection, "DELETE FROM items")
    assert authorizer.denied == "DELETE items"
    connection.set_authorizer(forbid(sqlite3.SQLITE_FUNCTION))  # replaces the previous one
    assert runs(connection, "SELECT id FROM items")
    assert not runs(connection, "SELECT abs(id) FROM items")
    connection.close()


def test_an_authorizer_that_is_taken_away_leaves_the_guard() -> None:
    """``set_authorizer(None)`` removes the application's own authorizer only."""
    connection, authorizer = connect(), Authorizer()
    install_authorizer(connection, authorizer)
    connection.set_authorizer(forbid(sqlite3.SQLITE_SELECT))
    connection.set_authorizer(None)
    authorizer.access = Access.NO_WRITES
    assert runs(connection, "SELECT id FROM items")
    assert not runs(connection, "DELETE FROM items")
    connection.close()


def test_the_guard_may_be_installed_again() -> None:
    """Compiled statements are compiled again and checked; the application's authorizer stays."""
    connection, authorizer = connect(), Authorizer()
    install_authorizer(connection, authorizer)
    connection.set_authorizer(forbid(sqlite3.SQLITE_SELECT))
    authorizer.access = Access.NOTED
    connection.execute("DELETE FROM items")
    authorizer.attempted = None
    connection.execute("DELETE FROM items")
    assert authorizer.attempted is None
    with authorizer.aside():
        install_authorizer(connection, authorizer)
        assert runs(connection, "SELECT 1 FROM items"), "the application is not asked aside"
    connection.execute("DELETE FROM items")
    assert authorizer.attempted == "DELETE items"
    assert not runs(connection, "SELECT id FROM items")
    connection.close()


def test_asking_again_asks_what_is_asked_now() -> None:
    """The authorizer is called again, or the callback that replaces it for a while."""
    connection, authorizer = connect(), Authorizer()
    asked: list[int] = []

    def instead(action: int, *rest: Any) -> int:
        asked.append(action)
        return authorizer(action, *rest)

    install_authorizer(connection, authorizer)
    ask_instead(connection, instead)
    connection.execute("SELECT id FROM items")
    asked.clear()
    connection.execute("SELECT id FROM items")
    assert not asked
    ask_again(connection, authorizer)
    connection.execute("SELECT id FROM items")
    assert asked
    install_authorizer(connection, authorizer)
    asked.clear()
    ask_again(connection, authorizer)
    connection.execute("SELECT id FROM items")
    assert not asked
    connection.close()


def test_a_connection_of_another_class_has_one_authorizer() -> None:
    """``async_creator``: on other connections, the authorizer that was set last is the only one."""
    connection, authorizer = sqlite3.connect(":memory:", isolation_level=None), Authorizer()
    authorizer.access = Access.NO_WRITES
    install_authorizer(connection, authorizer)
    assert not runs(connection, "CREATE TABLE items (id)")
    authorizer.access = Access.NOTED
    connection.execute("CREATE TABLE items (id)")
    connection.execute("DELETE FROM items")
    authorizer.attempted = None
    ask_again(connection, authorizer)
    connection.execute("DELETE FROM items")
    assert authorizer.attempted == "DELETE items"
    watch_progress(connection, lambda: 1, 1)
    assert not runs(connection, LONG)
    watch_progress(connection, None, 0)
    assert runs(connection, LONG)
    assert own_progress_handler(connection) is None
    connection.close()


class Handler:
    """Counts its calls, and stops the statement if ``stops`` is set."""

    def __init__(self) -> None:
        self.calls, self.stops = 0, False

    def __call__(self) -> bool:
        self.calls += 1
        return self.stops


def test_both_progress_handlers_are_called() -> None:
    """Both are called while the package watches; before and after, only the application's is."""
    connection, own, ours = connect(), Handler(), Handler()
    connection.set_progress_handler(own, 100)
    assert own_progress_handler(connection) is own
    assert runs(connection, LONG)
    alone = own.calls
    assert alone > 0
    watch_progress(connection, ours, 10)
    assert runs(connection, LONG)
    assert own.calls > alone
    assert ours.calls > 0
    own.calls = ours.calls = 0
    watch_progress(connection, None, 0)
    assert runs(connection, LONG)
    assert own.calls > 0
    assert ours.calls == 0
    connection.close()


def test_either_stops_the_statement() -> None:
    """The application's handler is called at least as often as it has requested."""
    connection, own, ours = connect(), Handler(), Handler()
    connection.set_progress_handler(own, 100)
    watch_progress(connection, ours, 1_000_000)
    own.stops = True
    assert not runs(connection, LONG)
    own.stops = False
    assert runs(connection, LONG)
    watch_progress(connection, ours, 100)
    ours.stops = True
    assert not runs(connection, LONG)
    connection.close()


def test_an_application_may_set_its_handler_while_the_package_watches() -> None:
    """For example, in a function of run_write(): neither handler replaces the other."""
    connection, own, ours = connect(), Handler(), Handler()
    watch_progress(connection, ours, 100)
    connection.set_progress_handler(own, 100)
    assert runs(connection, LONG)
    assert own.calls > 0
    assert ours.calls > 0
    connection.set_progress_handler(None, 0)
    own.calls = ours.calls = 0
    assert runs(connection, LONG)
    assert own.calls == 0
    assert ours.calls > 0
    watch_progress(connection, None, 0)
    connection.close()


@pytest.mark.parametrize("n", [0, -1])
def test_a_handler_that_is_never_called_is_none(n: int) -> None:
    """ "If N is less than one the progress handler is disabled" (c3ref/progress_handler.html)."""
    connection, own = connect(), Handler()
    connection.set_progress_handler(own, n)
    assert own_progress_handler(connection) is None
    assert runs(connection, LONG)
    assert own.calls == 0
    connection.close()
