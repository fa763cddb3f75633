"""Connections checked out: SQLAlchemy pools."""
