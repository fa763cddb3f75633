"""The least work possible behind SQLAlchemy's interface, compared to synchronous and to ours.

dialect.py   ``sqlite3`` called directly, on the event loop
pools.py     pools that keep connections open
engines.py   engines and sessions over both
threads.py   a thread with one connection of synchronous SQLAlchemy
prepared.py  a statement compiled by SQLAlchemy, and rows made by it
kinds.py     the contenders that are compared with each other
results.py   figures

They use nothing of this package, except the reused greenlets of its drop-in imports.
"""
