"""The ways of accessing a database that are compared.

base.py          the interface of a way
steps.py         the steps of an operation, defined once for all ways
settings.py      the actual settings of a contender
engines.py       the engines, each a function of the database file
asynchronous.py  SQLAlchemy's asyncio engines, through connections and through sessions
facade.py        SQLiteDatabase: sessions, and closures
threads.py       synchronous SQLAlchemy: in one thread, and in the threads of a pool
drivers.py       aiosqlite, aiosqlitepool, and apsw, without SQLAlchemy
contenders.py    a way, and the tasks or thread that use it
open_loop.py     contenders whose requests arrive on their own schedule
catalogue.py     all of them, by name
"""
