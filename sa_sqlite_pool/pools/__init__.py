"""SQLAlchemy pools: checkout and check-in of connections."""
