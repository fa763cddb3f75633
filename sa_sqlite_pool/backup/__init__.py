"""Backups of a database while it is used, and their restore."""
