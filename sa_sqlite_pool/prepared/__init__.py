"""Prepared reads: compiled once, and executed with as little work around SQLite as can be."""
