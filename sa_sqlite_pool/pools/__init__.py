"""Connections on loan: SQLAlchemy pools."""
