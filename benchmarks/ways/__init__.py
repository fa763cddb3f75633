"""The ways of getting at a database that are compared.

base.py        what a way is
engines.py     SQLAlchemy's asyncio engines, through connections and through sessions
facade.py      SQLiteDatabase: sessions, and closures
threads.py     synchronous SQLAlchemy: in one thread, and in those of a pool
drivers.py     aiosqlite, aiosqlitepool, and apsw, without SQLAlchemy
catalogue.py   all of them, by name
"""
