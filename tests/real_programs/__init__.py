"""Small programs as applications contain them, through every door, with stock as a control.

`make test` runs them once; `make test-cases` on several versions of Python, SQLAlchemy and SQLite.
"""
