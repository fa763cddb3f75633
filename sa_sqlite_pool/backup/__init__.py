"""Backups of a database that is in use, and how they are restored."""
