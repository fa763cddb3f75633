"""The ways of getting at a database that are compared.

base.py          what a way is
steps.py         what an operation asks, said once for every way
settings.py      what a contender really runs with
engines.py       the engines, each a function of the database file
asynchronous.py  SQLAlchemy's asyncio engines, through connections and through sessions
facade.py        SQLiteDatabase: sessions, and closures
threads.py       synchronous SQLAlchemy: in one thread, and in those of a pool
drivers.py       aiosqlite, aiosqlitepool, and apsw, without SQLAlchemy
contenders.py    a way, and who does the work
open_loop.py     contenders that are asked at moments of their own
catalogue.py     all of them, by name
"""
