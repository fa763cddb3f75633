"""Columns: which values fit on PostgreSQL, how they are written there, and how compared."""
