"""The content: damage, foreign keys, indexes, and the space that it takes."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from sa_sqlite_pool.doctor import Severity, examine, indexes, space
from sa_sqlite_pool.doctor.findings import as_written
from tests.commanding import shell
from tests.doctor.patients import SCHEMA, WAL, execute, found, healthy, ids, mended, numbers

MANY = f"{numbers(3000)} INSERT INTO parents SELECT i + 9, hex(randomblob(500)) FROM n"


# -- damage ----------------------------------------------------------------------------------------


def test_a_corrupt_page(path: Path) -> None:
    """A page that is overwritten in the middle of a table is reported."""
    healthy(path)
    execute(path, MANY)
    with path.open("r+b") as file:
        file.seek(100 * 4096)
        file.write(b"\xff" * 4096)
    finding = found(path, "damaged", Severity.ERROR)
    assert "integrity_check reports: " in finding.message
    assert finding.mend.startswith(f"sa-sqlite-pool restore BACKUP {path}, or")
    assert ids(path) == ["damaged"]


def test_a_corrupt_schema(path: Path) -> None:
    """SQLite cannot even list the tables."""
    healthy(path)
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * 200 + content[300:])
    assert "SQLite reports: " in found(path, "damaged", Severity.ERROR).message
    assert examine(path).checked is None


def test_a_schema_of_another_sqlite(path: Path) -> None:
    """The message says that a newer SQLite may have created it, and reports no damage."""
    healthy(path)
    execute(
        path,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = 'CREATE TABLE parents (id) AND MORE'"
        " WHERE name = 'parents'",
    )
    assert "a newer SQLite has made it" in found(path, "malformed-schema", Severity.ERROR).message
    assert ids(path) == ["malformed-schema"]


def test_a_schema_with_names_that_are_no_text(path: Path) -> None:
    """SQLite's message contains these names, and is shown as far as it can be decoded."""
    healthy(path)
    execute(
        path,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET name = CAST(x'FF' AS TEXT) WHERE name = 'parents'",
    )
    message = found(path, "malformed-schema", Severity.ERROR).message
    shown = "\N{REPLACEMENT CHARACTER}"
    if sys.version_info < (3, 11):  # which drops the message
        shown = "of a name that is not UTF-8"
    assert f"malformed database schema ({shown})" in message


def test_names_that_are_no_utf_8(path: Path) -> None:
    """SQLite accepts them, so nothing is reported."""
    healthy(path)
    execute(path, 'CREATE TABLE "XX" (a, "YY")', 'CREATE INDEX "ZZ" ON "XX" ("YY")')
    content = path.read_bytes()
    for name in (b"XX", b"YY", b"ZZ"):
        assert name in content
        content = content.replace(name, b"\xff\xfe")
    path.write_bytes(content)
    assert ids(path) == []


def test_what_only_the_application_has(path: Path) -> None:
    """An index with the application's own collation is skipped; the rest is examined."""
    healthy(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.create_collation("german", lambda one, other: (one > other) - (one < other))
        connection.execute("CREATE INDEX ix_name ON parents (name COLLATE german)")
    execute(path, "DROP INDEX ix_children_parent_id")
    finding = found(path, "own-functions", Severity.WARNING)
    assert "german" in finding.message
    assert "PRAGMA integrity_check" in finding.mend
    assert ids(path) == ["own-functions", "foreign-key-without-index"]
    assert examine(path).checked is None


def test_a_file_that_was_cut(path: Path) -> None:
    healthy(path)
    execute(path, MANY)
    path.write_bytes(path.read_bytes()[: 50 * 4096])
    assert "damaged" in ids(path)


def test_an_index_that_does_not_match(path: Path) -> None:
    """The finding occurs after a change of a collation, for example; ``quick`` skips the check."""
    healthy(path)
    execute(path, "CREATE INDEX ix_name ON parents (name)", "PRAGMA writable_schema = ON")
    execute(
        path,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = 'CREATE INDEX ix_name ON parents (name DESC)'"
        " WHERE name = 'ix_name'",
    )
    finding = found(path, "damaged-index", Severity.ERROR)
    assert "the index ix_name " in finding.message
    assert examine(path, quick=True).findings == ()
    mended(path, finding)


# -- keys and indexes ------------------------------------------------------------------------------


def test_foreign_keys(path: Path) -> None:
    """Rows without a parent are reported, until the parents exist again."""
    healthy(path)
    execute(path, "INSERT INTO children VALUES (4, 7), (5, 8)")
    finding = found(path, "foreign-keys", Severity.ERROR)
    assert finding.message == "2 rows of children refer to rows of parents that are not there"
    execute(path, "INSERT INTO parents (id) VALUES (7), (8)")
    assert ids(path) == []


def test_foreign_keys_that_no_parent_can_have(path: Path) -> None:
    """In that case SQLite refuses every write, and a UNIQUE index is the remedy."""
    healthy(path)
    execute(
        path,
        "CREATE TABLE other (name REFERENCES parents (name))",
        "CREATE INDEX ix_other ON other (name)",
    )
    finding = found(path, "foreign-key-mismatch", Severity.ERROR)
    assert "UNIQUE index" in finding.mend
    execute(path, "CREATE UNIQUE INDEX uq_name ON parents (name)")
    assert ids(path) == []


@pytest.mark.parametrize("large", [False, True])
def test_a_lost_index(path: Path, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign key without an index gives a note, or a warning if the table is large."""
    if large:
        monkeypatch.setattr(indexes, "LARGE_TABLE", 3)
    healthy(path)
    execute(path, "DROP INDEX ix_children_parent_id")
    severity = Severity.WARNING if large else Severity.INFO
    mended(path, found(path, "foreign-key-without-index", severity))


def test_a_lost_index_with_names_that_need_quotes(path: Path) -> None:
    """Names are quoted for SQL and for the shell."""
    healthy(path)
    execute(path, 'CREATE TABLE "it\'s $a ""b""" ("Key of" REFERENCES parents (id))')
    mended(path, found(path, "foreign-key-without-index", Severity.INFO))


def test_a_lost_index_whose_name_is_taken(path: Path) -> None:
    """If an index on other columns has the name, for example, the new index gets another one."""
    healthy(path)
    execute(
        path,
        "DROP INDEX ix_children_parent_id",
        "CREATE INDEX IX_children_parent_id ON children (id, parent_id)",
        "CREATE TABLE ix_children_parent_id_2 (id)",
    )
    mended(path, found(path, "foreign-key-without-index", Severity.INFO))


def test_a_path_that_begins_like_an_option(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands treat it as a path."""
    monkeypatch.chdir(path.parent)
    execute(Path("-app.db"), *SCHEMA)
    finding = found(Path("-app.db"), "journal-mode", Severity.WARNING)
    assert finding.mend.startswith("sqlite3 ./-app.db ")
    mended(Path("-app.db").absolute(), finding)


@pytest.mark.parametrize("word", ["order", "group", "nothing", "returning", "cast"])
def test_names_that_are_words_of_sql(path: Path, word: str) -> None:
    """Keywords are quoted, too, wherever they occur in a command."""
    healthy(path)
    execute(
        path,
        f'CREATE TABLE "{word}" (id INTEGER PRIMARY KEY, "{word}" REFERENCES parents (id))',
        f'INSERT INTO "{word}" VALUES (1, 7)',
    )
    look = found(path, "foreign-keys", Severity.ERROR).mend.partition(" lists them")[0]
    assert shell(look, path.parent) == f"{word}|1|parents|0\n"
    execute(path, f'DELETE FROM "{word}"')
    mended(path, found(path, "foreign-key-without-index", Severity.INFO))
    execute(path, 'CREATE INDEX "table" ON children (parent_id)')
    mended(path, found(path, "double-index", Severity.INFO))


@pytest.mark.parametrize("name", ["books", "key", "index_of", "_x1"])
def test_names_that_need_no_quotes(name: str) -> None:
    """They are not quoted, which keeps the command readable."""
    assert as_written(name) == name


@pytest.mark.parametrize("kind", ["INT", "BIGINT", "bigint"])
def test_a_key_that_is_not_the_rowid(path: Path, kind: str) -> None:
    """Only an INTEGER PRIMARY KEY is the rowid."""
    execute(path, WAL, f"CREATE TABLE t (id {kind} PRIMARY KEY)")
    assert "INTEGER PRIMARY KEY" in found(path, "primary-key-type", Severity.INFO).mend
    execute(path, "DROP TABLE t", "CREATE TABLE t (id INTEGER PRIMARY KEY)")
    assert ids(path) == []


def test_two_indexes_on_the_same_columns(path: Path) -> None:
    """One of them suffices; another order, collation or condition makes a different index."""
    healthy(path)
    execute(
        path,
        "CREATE INDEX ix_a ON parents (name DESC)",
        "CREATE INDEX ix_b ON parents (name COLLATE NOCASE)",
        "CREATE INDEX ix_c ON parents (name) WHERE id > 1",
        "CREATE INDEX ix_d ON parents (upper(name))",
        "CREATE UNIQUE INDEX ix_e ON parents (name)",
    )
    assert ids(path) == []
    execute(path, "CREATE INDEX ix_double ON parents (name)")
    mended(path, found(path, "double-index", Severity.INFO))


# -- space -----------------------------------------------------------------------------------------


def test_free_pages(path: Path) -> None:
    """More than a quarter of the file, and more than four MiB, is reported."""
    healthy(path)
    execute(
        path,
        f"{numbers(6000)} INSERT INTO parents SELECT i + 9, randomblob(1000) FROM n",
        "DELETE FROM parents WHERE id > 99",
    )
    mended(path, found(path, "free-pages", Severity.INFO))


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a database of more than a mebibyte count as large."""
    monkeypatch.setattr(space, "LARGE", 1024 * 1024)


def test_small_pages(path: Path, small_is_large: None) -> None:
    """Small pages are reported for a large database."""
    execute(path, "PRAGMA page_size = 1024", WAL, *SCHEMA, MANY, "ANALYZE")
    mended(path, found(path, "page-size", Severity.INFO))


def test_a_tiny_cache(path: Path, small_is_large: None) -> None:
    """The setting is stored in the file, and applies to each connection."""
    healthy(path)
    execute(path, MANY, "ANALYZE", "PRAGMA default_cache_size = 2")
    mended(path, found(path, "cache-size", Severity.WARNING))


def test_a_cache_that_is_small_for_the_database(path: Path, small_is_large: None) -> None:
    """The cache size is this package's; the remedy is the setting to use."""
    healthy(path)
    execute(path, "ANALYZE")
    with path.open("r+b") as file:  # 4 GiB, of which the disk stores nothing
        file.truncate(4 * 1024**3)
        file.seek(28)
        file.write((2**20).to_bytes(4, "big"))
    finding = next(each for each in examine(path, quick=True).findings if each.id == "cache-size")
    assert finding.severity is Severity.INFO
    assert finding.mend.startswith('pragmas={"cache_size": -41944}')


def test_no_statistics(path: Path, small_is_large: None) -> None:
    """Missing statistics are reported for a large database with indexes."""
    healthy(path)
    execute(path, MANY)
    mended(path, found(path, "no-statistics", Severity.INFO))
    execute(path, "DELETE FROM sqlite_stat1")
    assert ids(path) == ["no-statistics"]


def test_an_empty_file(path: Path) -> None:
    """SQLite treats it as a database, and nothing else is reported about it."""
    path.touch()
    found(path, "empty", Severity.INFO)
    assert ids(path) == ["empty"]
    assert path.stat().st_size == 0


def test_values_that_the_table_does_not_allow(path: Path) -> None:
    """Such values are not damage, and do not hide any."""
    healthy(path)
    execute(
        path,
        "CREATE TABLE t (x)",
        f"INSERT INTO t VALUES {', '.join(['(NULL)'] * 30)}",
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = 'CREATE TABLE t (x NOT NULL)' WHERE name = 't'",
    )
    finding = found(path, "values", Severity.ERROR)
    assert finding.message == (
        "integrity_check reports values that their table does not allow: NULL value in t.x"
    )
    assert ids(path) == ["values"]
    execute(
        path,
        "PRAGMA writable_schema = ON",
        "DELETE FROM sqlite_master WHERE name = 'ix_children_parent_id'",
    )
    assert {"damaged", "values"} <= set(ids(path))
