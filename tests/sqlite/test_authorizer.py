"""SQLite's authorizer: what it records, and the few actions that it denies."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from sa_sqlite_pool.sqlite.authorizer import Access, Authorizer

WRITES = {
    "INSERT INTO items VALUES (1, 1)": "INSERT items",
    "REPLACE INTO items VALUES (1, 1)": "INSERT items",
    "UPDATE items SET amount = 1": "UPDATE items",
    "DELETE FROM items": "DELETE items",
    "WITH one(i) AS (SELECT 1) DELETE FROM items WHERE id IN one": "DELETE items",
    "UPDATE items SET amount = 1 RETURNING id": "UPDATE items",
    "INSERT INTO shown VALUES (1)": "INSERT shown",
    "CREATE TABLE other (id)": "INSERT sqlite_master",
    "CREATE INDEX by_amount ON items (amount)": "INSERT sqlite_master",
    "CREATE VIEW v AS SELECT 1": "INSERT sqlite_master",
    "CREATE TRIGGER t AFTER INSERT ON items BEGIN SELECT 1; END": "CREATE TRIGGER t",
    "CREATE VIRTUAL TABLE search USING fts5(body)": "INSERT sqlite_master",
    "DROP TABLE items": "DELETE sqlite_master",
    "DROP VIEW shown": "DELETE sqlite_master",
    "DROP INDEX by_id": "DELETE sqlite_master",
    "DROP TRIGGER instead": "DROP TRIGGER instead",
    "ALTER TABLE items ADD COLUMN more": "ALTER TABLE items",
    "ALTER TABLE items RENAME TO others": "ALTER TABLE items",
    "REINDEX by_id": "REINDEX by_id",
    "ANALYZE items": "ANALYZE items",
    "PRAGMA user_version = 1": "PRAGMA user_version",
    "PRAGMA main.application_id(1)": "PRAGMA application_id",
    "PRAGMA schema_version = 1": "PRAGMA schema_version",
    "PRAGMA optimize": "PRAGMA optimize",
    "PRAGMA incremental_vacuum": "PRAGMA incremental_vacuum",
    "PRAGMA wal_checkpoint": "PRAGMA wal_checkpoint",
    "pragma Wal_Checkpoint(PASSIVE)": "PRAGMA wal_checkpoint",
    "PRAGMA journal_mode = DELETE": "PRAGMA journal_mode",
    "SELECT * FROM pragma_optimize": "PRAGMA optimize",
    "EXPLAIN PRAGMA user_version = 1": "PRAGMA user_version",
    "INSERT INTO attached.others VALUES (1)": "INSERT others",
}

INNOCENT = [
    "SELECT * FROM items",
    "SELECT count(*) FROM items, shown",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3) SELECT i FROM n",
    "VALUES (1)",
    "SELECT value FROM json_each('[1]')",
    "SELECT name FROM pragma_table_info('items')",
    "SAVEPOINT a",
    "BEGIN",
    "PRAGMA user_version",
    "PRAGMA table_info(items)",
    "PRAGMA query_only",
    "PRAGMA journal_mode",
    "CREATE TEMP TABLE scratch (i)",
    "CREATE TABLE temp.scratch (i)",
    "CREATE TEMP VIEW v AS SELECT * FROM items",
    "CREATE TEMP TRIGGER t AFTER INSERT ON items BEGIN DELETE FROM items; END",
    "CREATE VIRTUAL TABLE temp.search USING fts5(body)",
    "INSERT INTO own VALUES (1)",
    "UPDATE own SET i = 2",
    "DELETE FROM own",
    "ALTER TABLE own ADD COLUMN more",
    "CREATE INDEX temp.by_i ON own (i)",
    "DROP TABLE own",
    "ATTACH ':memory:' AS another",
]

PASSES_READ_ONLY = {
    "ATTACH 'other.db' AS other": "ATTACH or VACUUM INTO",
    "ATTACH $name AS other": "ATTACH or VACUUM INTO",
    "ATTACH 'oth' || 'er.db' AS other": "ATTACH or VACUUM INTO",
    "VACUUM INTO 'copy.db'": "ATTACH or VACUUM INTO",
    "PRAGMA wal_checkpoint": "PRAGMA wal_checkpoint",
    "PRAGMA main.wal_checkpoint(TRUNCATE)": "PRAGMA wal_checkpoint",
    "PRAGMA journal_mode = DELETE": "PRAGMA journal_mode = delete",
    "PRAGMA journal_mode(MEMORY)": "PRAGMA journal_mode = memory",
    "PRAGMA locking_mode = EXCLUSIVE": "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA query_only = 0": "PRAGMA query_only = 0",
    "PRAGMA query_only = 256": "PRAGMA query_only = 256",
    "PRAGMA query_only = OFF": "PRAGMA query_only = off",
    "PRAGMA query_only(no)": "PRAGMA query_only = no",
}

ALLOWED_TO_READERS = [
    "PRAGMA journal_mode",
    "PRAGMA journal_mode = wal",
    "PRAGMA locking_mode",
    "PRAGMA locking_mode = NORMAL",
    "PRAGMA query_only",
    "PRAGMA query_only = 1",
    "PRAGMA query_only = 0x1",
    "PRAGMA query_only = ON",
    "ATTACH '' AS scratch",
    "ATTACH ':memory:' AS scratch",
    # SQLite itself refuses these on a connection that is read-only.
    "INSERT INTO items VALUES (1, 1)",
    "CREATE TABLE other (id)",
]


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(
        """
        CREATE TABLE items (id INTEGER PRIMARY KEY, amount);
        CREATE INDEX by_id ON items (id);
        CREATE VIEW shown AS SELECT id FROM items;
        CREATE TRIGGER instead INSTEAD OF INSERT ON shown
            BEGIN INSERT INTO items VALUES (9, 9); END;
        ATTACH ':memory:' AS attached;
        CREATE TABLE attached.others (id);
        CREATE TEMP TABLE own (i);
        """
    )
    yield connection
    connection.close()


@pytest.fixture
def authorizer(connection: sqlite3.Connection) -> Authorizer:
    authorizer = Authorizer()
    connection.set_authorizer(authorizer)
    return authorizer


def is_denied(connection: sqlite3.Connection, sql: str) -> bool:
    try:
        connection.execute(sql, {"name": "other.db"} if "$name" in sql else ())
    except sqlite3.DatabaseError as error:
        if not any(words in str(error) for words in ("not authorized", "prohibited", "denied")):
            raise
        return True
    return False


@pytest.mark.parametrize(("sql", "written"), WRITES.items())
def test_a_write_without_the_turn_is_denied(
    connection: sqlite3.Connection, authorizer: Authorizer, sql: str, written: str
) -> None:
    """The write is recognized by its action and table, whatever its text looks like."""
    authorizer.access = Access.NO_WRITES
    assert is_denied(connection, sql)
    assert authorizer.denied == authorizer.attempted == written


@pytest.mark.parametrize("sql", INNOCENT)
@pytest.mark.parametrize("access", Access)
def test_what_writes_no_file_is_neither_denied_nor_noted(
    connection: sqlite3.Connection, authorizer: Authorizer, access: Access, sql: str
) -> None:
    """Reads, queries of pragmas and writes to the connection's own temp tables are allowed."""
    authorizer.access = access
    assert not is_denied(connection, sql)
    assert authorizer.denied is None
    assert authorizer.attempted is None


@pytest.mark.parametrize(("sql", "written"), WRITES.items())
def test_a_write_is_noted_where_it_is_allowed(
    connection: sqlite3.Connection, authorizer: Authorizer, sql: str, written: str
) -> None:
    """What a statement that looks like a read has written is known after its execution."""
    authorizer.access = Access.NOTED
    assert not is_denied(connection, sql)
    assert authorizer.attempted is not None
    if sql.startswith(("INSERT", "UPDATE", "DELETE", "PRAGMA")) and "shown" not in sql:
        assert authorizer.attempted == written  # to SQLite, the others are several actions
    assert authorizer.denied is None


@pytest.mark.parametrize("sql", WRITES)
def test_a_connection_that_may_write_is_not_looked_at(
    connection: sqlite3.Connection, authorizer: Authorizer, sql: str
) -> None:
    """While the connection holds the turn, nothing is denied, and nothing has to be recorded."""
    assert not is_denied(connection, sql)
    assert authorizer.attempted is None


@pytest.mark.parametrize(("sql", "refused"), PASSES_READ_ONLY.items())
@pytest.mark.parametrize("access", [Access.READER, Access.READER_TEMP])
def test_what_a_read_only_connection_lets_through_is_denied(
    connection: sqlite3.Connection, authorizer: Authorizer, access: Access, sql: str, refused: str
) -> None:
    """Attaching files, changing the log, and making the connection writable are denied."""
    authorizer.access = access
    assert is_denied(connection, sql)
    assert authorizer.denied == authorizer.attempted == refused


@pytest.mark.parametrize("sql", ALLOWED_TO_READERS)
def test_a_reader_is_denied_nothing_else(
    connection: sqlite3.Connection, authorizer: Authorizer, sql: str
) -> None:
    """SQLite's own error is clearer where it raises one: compiled code is not always executed."""
    authorizer.access = Access.READER
    assert not is_denied(connection, sql)
    assert authorizer.denied is None


@pytest.mark.parametrize("sql", WRITES)
def test_a_reader_that_may_write_temp_tables_writes_nothing_else(
    connection: sqlite3.Connection, authorizer: Authorizer, sql: str
) -> None:
    """Only temp tables may be written while query_only is off."""
    authorizer.access = Access.READER_TEMP
    assert is_denied(connection, sql)
    assert authorizer.denied is not None


def test_no_pragma_is_set_by_examining_it(
    connection: sqlite3.Connection, authorizer: Authorizer
) -> None:
    """ "Some pragmas run during the SQL compilation stage", so EXPLAIN would set them."""
    for access, foreign_keys in ((Access.EXAMINED, 0), (Access.NOTED, 1)):
        authorizer.access = access
        assert is_denied(connection, "EXPLAIN PRAGMA foreign_keys = ON") is not bool(foreign_keys)
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (foreign_keys,)


def test_the_log_that_there_is_already_is_no_write(
    connection: sqlite3.Connection, authorizer: Authorizer
) -> None:
    """Setting WAL mode where it is set already, as listeners do on each connection, is allowed."""
    authorizer.access = Access.NO_WRITES
    assert not is_denied(connection, "PRAGMA journal_mode = WAL")
    assert not is_denied(connection, "PRAGMA main.journal_mode(wal)")


def test_temp_schemas_and_attached_files_are_counted(
    connection: sqlite3.Connection, authorizer: Authorizer
) -> None:
    """After such a change, a name may refer to another table."""
    for sql in ("CREATE TEMP TABLE a (i)", "DROP TABLE own", "CREATE INDEX temp.b ON a (i)"):
        before = authorizer.temp_schema
        connection.execute(sql)
        assert authorizer.temp_schema > before
    for number, sql in enumerate(("ATTACH '' AS another", "DETACH another"), 1):
        connection.execute(sql)
        assert authorizer.attached == number
    before = authorizer.temp_schema
    connection.execute("CREATE TABLE of_main (i)")
    assert authorizer.temp_schema == before


def test_a_busy_timeout_is_noticed(connection: sqlite3.Connection, authorizer: Authorizer) -> None:
    """Setting it is noticed in any spelling; querying it is not counted."""
    connection.execute("PRAGMA busy_timeout")
    connection.execute("PRAGMA cache_size = 5")
    assert not authorizer.busy_timeout
    connection.execute("PRAGMA -- of ours\n BUSY_TIMEOUT = 5")
    assert authorizer.busy_timeout


def test_functions_of_the_application_are_told(
    connection: sqlite3.Connection, authorizer: Authorizer
) -> None:
    """Calls are noticed in any case of letters; they are denied on the loop, never elsewhere."""
    connection.create_function("Mine", 0, lambda: 1)
    authorizer.functions = frozenset({"mine"})
    connection.execute("SELECT abs(1)")
    assert not authorizer.called
    connection.execute("SELECT mInE()")
    assert authorizer.called
    authorizer.inline = True
    assert is_denied(connection, "SELECT MINE() + 1")
    assert not is_denied(connection, "SELECT abs(2)")


def test_a_temp_trigger_on_a_table_of_the_file_is_no_write(
    connection: sqlite3.Connection, authorizer: Authorizer
) -> None:
    """Only that one question is passed over; a CREATE TABLE after it is denied."""
    authorizer.access = Access.NO_WRITES
    sql = "CREATE TEMP TRIGGER t AFTER INSERT ON items BEGIN SELECT 1; END"
    assert not is_denied(connection, sql)
    assert is_denied(connection, "CREATE TABLE other (id)")
    authorizer.application = lambda action, *_: (
        sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_CREATE_TEMP_TRIGGER else sqlite3.SQLITE_OK
    )
    assert is_denied(connection, sql.replace("TRIGGER t", "TRIGGER u"))
    assert is_denied(connection, "INSERT INTO items VALUES (1, 1)")


def test_it_is_known_whether_functions_may_have_compiled_a_write(
    connection: sqlite3.Connection, authorizer: Authorizer
) -> None:
    """SQLite does not ask again about compiled code, which matters if functions may execute it."""
    write = "DELETE FROM items"
    for access, functions_may_write in ((Access.ALL, False), (Access.NO_WRITES, True)):
        authorizer.access, authorizer.functions_may_write = access, functions_may_write
        is_denied(connection, write)
        assert not authorizer.compiled_writes
    for access in (Access.ALL, Access.NOTED):
        connection.set_authorizer(authorizer)
        authorizer.access, authorizer.compiled_writes = access, False
        connection.execute("SELECT * FROM items")
        assert not authorizer.compiled_writes
        connection.execute(write)
        assert authorizer.compiled_writes


def test_both_authorizers_are_asked(connection: sqlite3.Connection, authorizer: Authorizer) -> None:
    """The application's answer is used where it denies or hides something, else the package's."""
    answers = {"items": sqlite3.SQLITE_IGNORE, "others": sqlite3.SQLITE_DENY}
    authorizer.application = lambda action, first, *_: (
        answers.get(str(first), sqlite3.SQLITE_OK)
        if action == sqlite3.SQLITE_READ
        else sqlite3.SQLITE_OK
    )
    authorizer.access = Access.NO_WRITES
    assert connection.execute("SELECT count(amount) FROM items").fetchone() == (0,)
    assert is_denied(connection, "SELECT id FROM others")
    assert authorizer.denied is None
    assert is_denied(connection, "INSERT INTO own SELECT amount FROM items; ") is False
    assert is_denied(connection, "INSERT INTO items VALUES (1, 1)")
    assert authorizer.denied == "INSERT items"


def test_what_the_package_executes_itself_is_its_own_affair(
    connection: sqlite3.Connection, authorizer: Authorizer
) -> None:
    """An application that denies all PRAGMAs does not prevent the package's own."""
    asked: list[int] = []

    def forbid(action: int, *_: object) -> int:
        asked.append(action)
        return sqlite3.SQLITE_DENY

    authorizer.application, authorizer.access = forbid, Access.READER
    with pytest.raises(LookupError), authorizer.aside():
        connection.execute("PRAGMA query_only = 0")
        assert not asked
        raise LookupError
    assert (authorizer.application, authorizer.access) == (forbid, Access.READER)
    with pytest.raises(sqlite3.DatabaseError), authorizer.allowing():
        connection.execute("PRAGMA query_only = 0")  # the application's: it is asked
    assert asked
    assert authorizer.access is Access.READER


def test_optimizing_a_full_text_index_by_a_function_is_a_write(
    connection: sqlite3.Connection, authorizer: Authorizer
) -> None:
    """FTS4 compiles its statements only once, and no authorizer is called for them later."""
    connection.execute("CREATE VIRTUAL TABLE search USING fts4(body)")
    connection.execute("INSERT INTO search VALUES ('a word')")
    connection.execute("SELECT optimize(search) FROM search LIMIT 1")
    authorizer.access = Access.NO_WRITES
    assert is_denied(connection, "SELECT Optimize(search) FROM search LIMIT 1 ")
    assert authorizer.denied == "SELECT optimize()"
