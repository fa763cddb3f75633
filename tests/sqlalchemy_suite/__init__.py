"""SQLAlchemy's own test suite on the stock pool and on ``SQLitePool``, compared test by test.

``make test-sqlalchemy-suite``. Not part of ``make test``: it downloads SQLAlchemy's source
distribution and takes a long time.
"""
