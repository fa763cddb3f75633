"""The kind of a statement, from its text."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from sa_sqlite_pool.settings import is_on
from sa_sqlite_pool.sqlite import tokens
from sa_sqlite_pool.sqlite.statements import (
    Attach,
    Dropped,
    Kind,
    Pragma,
    changes_settings,
    classify,
    dropped_table,
    ends_transaction,
    parse_attach,
    parse_pragma,
    savepoint_name,
)
from sa_sqlite_pool.sqlite.tokens import (
    first_word,
    is_followed_by_another,
    without_leading_semicolons,
)

CASES = {
    Kind.READ: [
        "SELECT 1",
        "  select * from items -- INSERT",
        "/* UPDATE */ SELECT 1",
        "VALUES (1)",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "WITH RECURSIVE a(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM a) SELECT n FROM a LIMIT 3",
        'WITH "insert" AS (SELECT \'DELETE\') SELECT * FROM "insert"',
        ";SELECT 1",
        "\ufeffSELECT 1",
        "/*/ INSERT */ SELECT 1",
        "-- INSERT\n\t; /**/ SELECT 1",
        "PRAGMA main.table_info('items')",
        'PRAGMA "main".table_xinfo("items")',
        "PRAGMA table_list",
        "pragma index_list(items)",
    ],
    Kind.EXPLAIN: ["EXPLAIN INSERT INTO items VALUES (1)", "explain query plan select 1"],
    Kind.WRITE: [
        "INSERT INTO items DEFAULT VALUES",
        "REPLACE INTO items VALUES (1)",
        "UPDATE items SET amount = 1 RETURNING id",
        "DELETE FROM items",
        "CREATE TABLE t (id)",
        "DROP TABLE t",
        "ALTER TABLE t RENAME TO u",
        "WITH a AS (SELECT 1) INSERT INTO items SELECT * FROM a",
        "WITH a AS (SELECT (SELECT 1)) DELETE FROM items WHERE id IN a",
        "WITH a(x) AS NOT MATERIALIZED (SELECT 1) UPDATE items SET amount = 2",
    ],
    Kind.UPKEEP: ["ANALYZE", "REINDEX by_name"],
    Kind.UNKNOWN: [
        "FROBNICATE",
        "",
        "SELECTED",
        "SELECT$",
        "éSELECT 1",
        "'INSERT' SELECT 1"[:8],
        "WITH a AS (SELECT '" + 20_000 * "x" + "') INSERT INTO items SELECT 1",
    ],
    Kind.TEMP_DDL: [
        "CREATE TEMP TABLE t (id)",
        "create temporary view v as select 1",
        "CREATE /* scratch */ TEMP TRIGGER t AFTER INSERT ON items BEGIN SELECT 1; END",
    ],
    Kind.SAVEPOINT: ["SAVEPOINT a"],
    Kind.BEGIN: ["BEGIN", "begin deferred transaction"],
    Kind.BEGIN_WRITE: ["BEGIN IMMEDIATE", "begin exclusive transaction"],
    Kind.END: ["COMMIT", "END TRANSACTION", "ROLLBACK", "RELEASE a", "ROLLBACK TO SAVEPOINT a"],
    Kind.SETTING: [
        "PRAGMA foreign_keys=ON",
        "PRAGMA journal_mode=WAL",
        "PRAGMA synchronous",
        "DETACH other",
    ],
    Kind.PRAGMA: ["PRAGMA user_version", "PRAGMA cache_size = 5", "PRAGMA defer_foreign_keys"],
    Kind.DEFERRAL: ["PRAGMA defer_foreign_keys=ON", "PRAGMA main.defer_foreign_keys(0)"],
    Kind.ATTACH: ["ATTACH 'x.db' AS x"],
    Kind.MAINTENANCE: [
        "VACUUM",
        "VACUUM INTO 'copy.db'",
        "PRAGMA wal_checkpoint",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA -- now\n wal_checkpoint",
        "PRAGMA main./* all */wal_checkpoint",
        "\ufeff;PRAGMA [main] . `wal_checkpoint`",
        "EXPLAIN PRAGMA wal_checkpoint",
        "EXPLAIN /**/ QUERY PLAN PRAGMA--\nwal_checkpoint",
    ],
    Kind.PRAGMA_WRITE: [
        "PRAGMA user_version = 3",
        "PRAGMA main.application_id(7)",
        "PRAGMA /* bytes */ default_cache_size = 5",
        "PRAGMA optimize",
        "PRAGMA--\nuser_version/**/=/**/3",
        "PRAGMA incremental_vacuum(1)",
    ],
}


@pytest.mark.parametrize(
    ("sql", "kind"), [(sql, kind) for kind, texts in CASES.items() for sql in texts]
)
def test_kinds(sql: str, kind: Kind) -> None:
    """Comments, quotes, parentheses and WITH do not mislead the classification."""
    assert classify(sql) is kind


def test_long_texts_are_judged_by_their_first_words() -> None:
    """An example is an INSERT of several thousand rows."""
    assert classify("INSERT INTO items VALUES " + "(1), " * 5000 + "(1)") is Kind.WRITE


def test_every_read_is_one_to_sqlite_as_well() -> None:
    """SQLite's authorizer confirms that none of these statements writes."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, amount)")
    actions: set[int] = set()

    def note(action: int, *_: object) -> int:
        actions.add(action)
        return sqlite3.SQLITE_OK

    connection.set_authorizer(note)
    for sql in CASES[Kind.READ]:
        connection.execute(sql).fetchall()
    reads = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
    assert actions <= reads | {sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_PRAGMA}
    connection.close()


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("PRAGMA user_version", Pragma("user_version", None, None)),
        ("pragma main.User_Version;", Pragma("user_version", "main", None)),
        ("PRAGMA 'main' . \"query_only\" = 'ON'", Pragma("query_only", "main", "on")),
        ("PRAGMA -- c\n query_only /* c */ = -- c\n 0 -- c", Pragma("query_only", None, "0")),
        ("PRAGMA cache_size=-2000", Pragma("cache_size", None, "-2000")),
        ("PRAGMA journal_mode(WAL) -- as we like it", Pragma("journal_mode", None, "wal")),
        ("EXPLAIN QUERY PLAN PRAGMA a.b(c)", Pragma("b", "a", "c")),
        ("; \ufeff PRAGMA x = ''", Pragma("x", None, "''")),
        ("SELECT 'PRAGMA x = 1'", None),
        ("PRAGMATIC x", None),
        ("EXPLAIN SELECT 1", None),
        ("", None),
    ],
)
def test_pragmas(sql: str, expected: Pragma | None) -> None:
    """Pragmas are parsed by SQLite's tokens, so comments and quotes do not hide them."""
    assert parse_pragma(sql) == expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("ATTACH 'a.db' AS a", Attach("'a.db'", "a")),
        ("attach database :file as :name ;", Attach(":file", ":name")),
        (
            "ATTACH 'a AS b' || CAST(1 AS TEXT) AS [c d]",
            Attach("'a AS b' || CAST(1 AS TEXT)", "[c d]"),
        ),
        ("-- x\nATTACH ?2/* y */AS ?1 -- z", Attach("?2/* y */", "?1")),
        ("ATTACH 'a.db' AS a KEY 'k'", None),
        ("ATTACH 'a.db' a", None),
        ("ATTACH", None),
        ("DETACH a", None),
    ],
)
def test_attaches(sql: str, expected: Attach | None) -> None:
    """The file is an expression, and an AS within it does not count."""
    assert parse_attach(sql) == expected


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        ("SAVEPOINT sa_savepoint_1", "sa_savepoint_1"),
        ("SAVEPOINT sa_savepoint_1 /*controller='index',traceparent='00-1-2'*/", "sa_savepoint_1"),
        ("ROLLBACK TO SAVEPOINT Sa_1 -- TO b", "sa_1"),
        ('ROLLBACK TRANSACTION TO "My Point";', "my point"),
        ("RELEASE SAVEPOINT [a]", "a"),
        ("release a$1;", "a$1"),
        ("SAVEPOINT é", "é"),
    ],
)
def test_names_of_savepoints(sql: str, name: str) -> None:
    """Names are returned as SQLite compares them; comments after them are ignored."""
    assert savepoint_name(sql) == name


@pytest.mark.parametrize(
    ("sql", "ends"),
    [
        ("COMMIT", True),
        ("END TRANSACTION", True),
        ("ROLLBACK", True),
        ("ROLLBACK /* TO a */", True),
        ("ROLLBACK TRANSACTION TO a", False),
        ("/* c */ ROLLBACK TO a", False),
        ("RELEASE a", False),
    ],
)
def test_what_ends_a_transaction(sql: str, ends: bool) -> None:
    """A statement that ends only a savepoint is not counted."""
    assert ends_transaction(sql) is ends


@pytest.mark.parametrize(
    ("sql", "changes"),
    [
        ("PRAGMA foreign_keys = OFF", True),
        ("PRAGMA -- c\n foreign_keys(0)", True),
        ("PRAGMA foreign_keys", False),
        ("PRAGMA table_info(items)", False),
        ("PRAGMA main.integrity_check(1)", False),
        ("/* c */ ATTACH 'a' AS a", True),
        ("DETACH a", True),
        ("VACUUM", False),
    ],
)
def test_what_changes_settings(sql: str, changes: bool) -> None:
    """A connection with changed settings is not reused as if it were new."""
    assert changes_settings(sql) is changes


@pytest.mark.parametrize(
    ("sql", "explained"),
    [
        ("; ;-- c\n; INSERT INTO a;", "INSERT INTO a;"),
        ("/* c */ SELECT 1", "SELECT 1"),
        ("SELECT 1", "SELECT 1"),
        (" ; -- nothing", " ; -- nothing"),
    ],
)
def test_what_explain_stands_before(sql: str, explained: str) -> None:
    """A leading semicolon would end the EXPLAIN."""
    assert without_leading_semicolons(sql) == explained


class Counting:
    """Replaces the pattern, and counts its matches and the characters that it examines."""

    def __init__(self, pattern: object) -> None:
        self.pattern, self.matches, self.characters = pattern, 0, 0

    def finditer(self, sql: str) -> object:
        for match in self.pattern.finditer(sql):  # type: ignore[attr-defined]
            self.matches += 1
            self.characters = max(self.characters, match.end())
            yield match


VERBS = ["SELECT 1", "INSERT INTO t VALUES (1)", "WITH a AS (SELECT 1) DELETE FROM t", "PRAGMA x=1"]
FILLERS = ["(1, 'x'), ", "'", '"', "[", "`", "(", "/*", "--", ";", "''", "a.", "\ufeff", "/"]


@pytest.mark.parametrize("filler", FILLERS)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("in_front", [True, False])
def test_megabytes_are_judged_in_bounded_work(
    monkeypatch: pytest.MonkeyPatch, filler: str, verb: str, in_front: bool
) -> None:
    """At most 16 KiB are examined, once, whatever the text contains; counted, not timed."""
    text = filler * (2**21 // len(filler))
    sql = text + verb if in_front else f"{verb} {text}"
    counting = Counting(tokens._TOKEN)
    monkeypatch.setattr(tokens, "_TOKEN", counting)
    asks = [
        *(classify, first_word, parse_pragma, parse_attach),
        *(is_followed_by_another, without_leading_semicolons),
    ]
    for ask in asks:
        counting.matches = 0
        ask(sql)
        assert counting.matches <= 16_384
    assert counting.characters <= 16_384


@pytest.mark.parametrize(
    ("sql", "dropped"),
    [
        ("DROP TABLE a", Dropped(None, "a")),
        ("/* x */ drop table IF EXISTS a;", Dropped(None, "a")),
        ('DROP TABLE "a b"', Dropped(None, "a b")),
        ('DROP TABLE """a"""', Dropped(None, '"a"')),
        ("DROP TABLE `a`", Dropped(None, "a")),
        ("DROP TABLE Main.[a]", Dropped("Main", "a")),
        ('DROP TABLE temp."a.b"', Dropped("temp", "a.b")),
        ("DROP TABLE IF EXISTS", None),
        ("DROP TABLE", None),
        ("DROP", None),
        ("DROP INDEX a", None),
        ("DELETE FROM a", None),
        ("", None),
    ],
)
def test_dropped_tables(sql: str, dropped: Dropped | None) -> None:
    """Names are returned without quotes, and with the schema if there is one."""
    assert dropped_table(sql) == dropped


@pytest.mark.parametrize(
    "value",
    [
        *("on", "'ON'", '"yes"', "true", "off", "no", "false", "x", "''", "extra", "full"),
        *("0", "1", "2", "01", "-1", "+1", "+ 1", "'+1'", "1.5", "1e1", "'1x'", "0x1", "'0x'"),
        *("256", "257", "0x100", "2147483647", "2147483648", "4294967297", "00000000001"),
        *("0x7fffffff", "0xffffffff", "0x100000001", "9" * 5000, "'²'", "²", "'\u0661'"),
    ],
)
@pytest.mark.parametrize("form", ["PRAGMA foreign_keys = {}", "PRAGMA foreign_keys({})"])
def test_a_boolean_value_is_read_as_sqlite_reads_it(form: str, value: str) -> None:
    """The value is read in the same way from the text and from the authorizer's arguments."""
    sql, found = form.format(value), list[str | None]()

    def note(_action: int, _name: str | None, given: str | None, *_: object) -> int:
        found.append(given)
        return sqlite3.SQLITE_OK

    with closing(sqlite3.connect(":memory:")) as connection:
        connection.set_authorizer(note)
        connection.execute(sql)
        is_set = bool(connection.execute("PRAGMA foreign_keys").fetchone()[0])
    pragma = parse_pragma(sql)
    assert pragma is not None
    assert pragma.value is not None
    assert is_on(pragma.value) is is_set
    assert found[0] is not None
    assert is_on(found[0].lower()) is is_set


@pytest.mark.parametrize(
    ("sql", "followed"),
    [
        ("BEGIN", False),
        (" ; BEGIN ; ", False),
        ("BEGIN; -- INSERT\n/* INSERT */", False),
        ("SAVEPOINT 'a;b'", False),
        ("", False),
        ("BEGIN; INSERT INTO t VALUES (1)", True),
        ("BEGIN;(", True),
        ("-- c;\nCOMMIT;;SELECT 1", True),
    ],
)
def test_a_second_statement_is_found(sql: str, followed: bool) -> None:
    """Semicolons alone, and those in quotes and comments, begin none."""
    assert is_followed_by_another(sql) is followed
