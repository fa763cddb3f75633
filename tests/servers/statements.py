"""A corpus of statements with effects, and innocent ones with the same words, for PostgreSQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Column,
    Integer,
    Sequence,
    Text,
    column,
    exists,
    func,
    literal,
    literal_column,
    select,
    text,
    union_all,
    values,
)
from sqlalchemy.orm import aliased

from .models import Account

SCHEMA = """
CREATE SEQUENCE numbers;
CREATE TABLE words (id int PRIMARY KEY, "into" text, "for" text, delete int, update int, share int,
    nextval text, numbers int[]);
INSERT INTO words VALUES (1, 'into', 'for', 1, 2, 3, 'nextval(1)', '{1,2,3}');
CREATE FUNCTION quiet() RETURNS void LANGUAGE sql AS '';
"""
"""The objects that the statements need. ``numbers`` is a sequence."""

# -- texts --------------------------------------------------------------------------------------

ACTING = [
    # functions with effects, whichever way they are called
    "SELECT nextval('numbers')",
    "select pg_catalog.NextVal ('numbers')",
    "SELECT \"nextval\"('numbers')",
    "SELECT pg_catalog . \"nextval\" /* of ( */ ('numbers')",
    "SELECT nextval -- (\n('numbers')",
    r"""SELECT U&"next\0076al"('numbers')""",
    """SELECT U&"next!0076al" UESCAPE '!' ('numbers')""",
    "SELECT * FROM nextval('numbers')",
    "SELECT * FROM words WHERE id = nextval('numbers')",
    "SELECT coalesce((SELECT nextval('numbers')), 0)",
    "VALUES (nextval('numbers'))",
    "WITH a AS (SELECT nextval('numbers')) SELECT * FROM a",
    "SELECT numbers[1:nextval('numbers')] FROM words",
    "SELECT setval('numbers', 7)",
    "SELECT nextval('numbers'), currval('numbers')",
    "SELECT pg_notify('channel', 'news')",
    "SELECT pg_advisory_xact_lock(1)",
    "SELECT pg_advisory_lock(1), pg_advisory_unlock(1)",
    "SELECT pg_try_advisory_xact_lock_shared(1, 2)",
    "SELECT id FROM words WHERE pg_try_advisory_xact_lock(id)",
    "SELECT set_config('app.tenant', '7', true)",
    "SELECT pg_current_xact_id()",
    "SELECT txid_current()",
    "SELECT pg_current_wal_lsn()",
    "SELECT lo_create(0)",
    "SELECT pg_export_snapshot()",
    "SELECT setseed(0.5)",
    "SELECT query_to_xml('SELECT nextval(''numbers'')', true, true, '')",
    # strings and comments that do not hide the call
    r"SELECT E'it\'s', nextval('numbers') --'",
    "SELECT E'a'\n'b\\'', nextval('numbers') --'",
    r"SELECT 'it\', nextval('numbers') --'",
    "SELECT 'a''', nextval('numbers')",
    "SELECT $$a$$, nextval('numbers'), $$b$$",
    "SELECT $a$ $$ $a$, nextval('numbers'), $b$ $b$",
    "SELECT 1 AS a€$x$, nextval('numbers') AS b€$x$",
    "SELECT 1 /* /* */ ' */, nextval('numbers') -- '",
    "SELECT 1 -- '\n, nextval('numbers') -- '",
    "SELECT B'1', X'1F', N'n', U&'d', nextval('numbers')",
    'SELECT 1 AS "a""b", nextval(\'numbers\')',
    "SELECT 'numbers'::text, nextval('numbers'::regclass)",
    # locks on rows
    "SELECT * FROM words FOR UPDATE",
    "SELECT * FROM words FOR NO KEY UPDATE SKIP LOCKED",
    "SELECT * FROM words FOR SHARE OF words NOWAIT",
    "SELECT * FROM words FOR /* only */ KEY SHARE",
    "(SELECT * FROM words FOR UPDATE)",
    "SELECT * FROM (SELECT * FROM words FOR SHARE) AS w",
    "WITH a AS (SELECT * FROM words FOR KEY SHARE) SELECT * FROM a",
    "SELECT * FROM words WHERE id = 1. FOR UPDATE",
    "SELECT (SELECT id FROM words LIMIT 1 FOR UPDATE)",
    # changes in statements that begin like a read
    "WITH a AS (DELETE FROM words RETURNING id) SELECT * FROM a",
    "WITH a AS MATERIALIZED (UPDATE words SET delete = 2 RETURNING id) SELECT * FROM a",
    "WITH a AS NOT MATERIALIZED (INSERT INTO words (id) VALUES (2) RETURNING id) SELECT * FROM a",
    "WITH a AS (WITH b AS (SELECT 1 AS id) DELETE FROM words WHERE id IN (SELECT id FROM b) "
    "RETURNING id) SELECT * FROM a",
    "WITH a AS (SELECT 1) DELETE FROM words",
    "WITH RECURSIVE a AS (SELECT 1) UPDATE ONLY words AS w SET delete = 2",
    "WITH values AS (SELECT 1) DELETE FROM words",
    "WITH values AS (SELECT 1), values2(id) AS (SELECT 2) UPDATE words SET delete = 2",
    "WITH a AS (SELECT 1 AS id) MERGE INTO words USING a ON words.id = a.id "
    "WHEN MATCHED THEN DELETE",
    "SELECT * INTO others FROM words",
    "WITH a AS (SELECT 1 AS id) SELECT id INTO others FROM a",
    "EXPLAIN ANALYZE DELETE FROM words",
    "EXPLAIN (COSTS off, ANALYZE) UPDATE words SET delete = 2",
    "EXPLAIN ANALYSE VERBOSE SELECT nextval('numbers')",
    "EXPLAIN (ANALYZE) WITH a AS (SELECT 1) DELETE FROM words",
    "EXPLAIN ANALYZE SELECT * FROM words FOR UPDATE",
    "EXPLAIN ANALYZE CREATE TABLE others AS SELECT 1",
    # statements that do not begin like a read
    "INSERT INTO words (id) VALUES (2)",
    "/* SELECT */ UPDATE words SET delete = 2",
    "-- SELECT\nDELETE FROM words",
    "TRUNCATE words",
    "LOCK TABLE words",
    "SET LOCAL app.tenant = '7'",
    "NOTIFY channel, 'news'",
    "LISTEN channel",
    "DO 'BEGIN PERFORM nextval(''numbers''); END'",
    "CREATE TABLE others (id int)",
    "DECLARE c CURSOR FOR SELECT 1",
    "SAVEPOINT a",
    "COMMENT ON TABLE words IS 'SELECT'",
    "REFRESH MATERIALIZED VIEW nothing",
]

SEVERAL = ["SELECT 1; SELECT 2", "SELECT 1; DELETE FROM words;", "SHOW ALL; SELECT 1"]
"""Several statements in one text, most of which the driver itself refuses."""

INNOCENT = [
    "SELECT 1",
    "SELECT 1;",
    " /* hint */ SELECT 1 ; -- end ;",
    "((SELECT 1) UNION (SELECT 2)) ORDER BY 1",
    "VALUES (1), (2)",
    "TABLE words",
    "SHOW transaction_isolation",
    "WITH a AS (SELECT 1) SELECT * FROM a",
    "WITH RECURSIVE a(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM a WHERE n < 3) SELECT n FROM a",
    # the same words in strings, comments and names
    "SELECT 'nextval(1) FOR UPDATE; INTO'",
    r"SELECT E'\' nextval(1) FOR UPDATE '",
    "SELECT E'a'\n'\\' FOR UPDATE '",
    "SELECT $$ nextval('numbers') FOR UPDATE; $$",
    "SELECT $tag$ $$ INTO $ $tag$",
    "SELECT 1 /* FOR UPDATE /* INTO */ ; nextval() */",
    "SELECT 1 -- FOR UPDATE",
    'SELECT "into", "for", "update" FROM words',
    "SELECT w.into, w.for FROM words AS w",
    "SELECT 1 AS into, 2 AS for",
    "SELECT nextval FROM words",
    "SELECT delete FROM words",
    "SELECT update, delete FROM words WHERE update = 2 ORDER BY update, delete",
    "SELECT count(update), max(delete) FROM words",
    "SELECT coalesce(update, delete), 1 AS set FROM words",
    "WITH update AS (SELECT 1 AS delete) SELECT delete FROM update",
    "WITH a AS (SELECT 1 AS set) SELECT set AS update FROM a",
    "SELECT id AS nextval, id AS lo_id FROM words",
    'SELECT 1 AS "FOR UPDATE", 2 AS "; DELETE FROM words"',
    r"""SELECT 1 AS U&"d\0061ta" """,
    # other meanings of the same words
    "SELECT substring('abc' FROM 1 FOR 2), overlay('abc' PLACING 'x' FROM 1 FOR 2)",
    "SELECT substring(nextval FOR 3) FROM words",
    "SELECT extract(year FROM now()), trim(LEADING 'x' FROM 'xy')",
    "SELECT id::text, numbers[1:2], numbers[:2] FROM words",
    "EXPLAIN DELETE FROM words",
    "EXPLAIN (FORMAT JSON) UPDATE words SET delete = 1",
    "EXPLAIN (COSTS off, ANALYZE) SELECT 1",
    "EXPLAIN ANALYZE VERBOSE SELECT * FROM words",
    # functions that only query
    "SELECT current_setting('app.tenant', true)",
    "SELECT random(), clock_timestamp(), gen_random_uuid(), pg_sleep(0)",
    "SELECT pg_backend_pid(), pg_is_in_recovery(), pg_last_wal_replay_lsn()",
    "SELECT * FROM pg_stat_activity, pg_locks, pg_settings LIMIT 1",
    "SELECT pg_relation_size('words'), pg_table_size('words')",
    "SELECT pg_current_xact_id_if_assigned(), pg_current_snapshot()",
    "SELECT quiet()",
]

# -- constructs ---------------------------------------------------------------------------------

numbers = Sequence("numbers")
_accounts = select(Account)
_locked = select(Account.id).with_for_update()
_one = values(column("n", Integer), name="one")

ACTING_CONSTRUCTS: list[Any] = [
    select(func.nextval("numbers")),
    select(func.pg_catalog.NEXTVAL("numbers")),
    func.nextval("numbers"),
    numbers.next_value(),
    select(numbers.next_value()),
    select(func.next_value(numbers)),
    select(Account.id + func.pg_catalog.nextval("numbers")),
    _accounts.where(func.pg_try_advisory_xact_lock(Account.id)),
    _accounts.order_by(func.pg_try_advisory_xact_lock(Account.id)),
    select(func.set_config("app.tenant", "7", True)),
    select(literal_column("nextval('numbers')")),
    select(text("nextval('numbers')")),
    select(literal(1)).select_from(text("accounts FOR UPDATE")),
    _accounts.where(text("pg_try_advisory_xact_lock(id)")),
    select(func.count()).select_from(func.nextval("numbers").table_valued("n")),
    select(func.sum(func.nextval("numbers")).over()),
    _accounts.with_for_update(),
    _accounts.with_for_update(read=True, skip_locked=True),
    _accounts.with_for_update(key_share=True),
    select(_locked.subquery()),
    select(_locked.cte("locked")),
    select(literal(1)).add_cte(_locked.cte("locked")),
    select(aliased(_accounts.with_for_update().subquery())),
    select(exists(_locked)),
    _accounts.where(Account.id.in_(_locked)),
    union_all(select(literal(1)), select(func.nextval("numbers"))),
    select(text("DELETE FROM words RETURNING id").columns(Column("id", Integer)).cte("gone")),
    select(text("SELECT id FROM words FOR UPDATE").columns(Column("id", Integer)).cte("held")),
    text("SELECT id, balance FROM accounts FOR UPDATE").columns(Account.id, Account.balance),
    select(Account).from_statement(text("SELECT * FROM accounts FOR UPDATE")),
    select(literal(1)).suffix_with("FOR UPDATE"),
    _accounts.with_statement_hint("FOR UPDATE"),
    select(_one.data([(func.nextval("numbers"),)])),
]

INNOCENT_CONSTRUCTS: list[Any] = [
    _accounts,
    select(literal("nextval('numbers') FOR UPDATE")),
    select(literal_column("'FOR UPDATE'"), literal_column("1").label("nextval")),
    select(column("nextval", Text), column("delete")).select_from(text("words")),
    select(text("update")).select_from(text("words")).order_by(text("update DESC")),
    select(func.substring("abc", 1, 2), func.random()),
    select(aliased(select(Account.id).subquery())),
    select(select(Account.id).cte("delete")),
    select(_one.data([(1,), (2,)])),
    _accounts.prefix_with("ALL").with_statement_hint("/* FOR UPDATE */"),
    select(Account).from_statement(text("SELECT * FROM accounts")),
    text("SELECT id FROM accounts WHERE id <> :into AND balance <> :for").bindparams(
        **{"into": 7, "for": 8}
    ),
    func.count(literal(1)),
]
