"""The least that any package could do behind SQLAlchemy's interface, beside synchronous and ours.

dialect.py   ``sqlite3`` called in place, on the event loop
pools.py     pools that keep what is open
engines.py   engines and sessions over both
threads.py   a thread with one connection of synchronous SQLAlchemy
prepared.py  a statement that SQLAlchemy has compiled, and rows made by it
kinds.py     what is compared with what
results.py   figures

Nothing of this package's own is in them, but the reused greenlets of its drop-in imports.
"""
