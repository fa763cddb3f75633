"""Small programs as people write them, through every door, with a stock engine as control.

`make test` runs them once; `make test-cases` on several versions of Python, SQLAlchemy and SQLite.
"""
