"""Columns: what fits into one on PostgreSQL, how it is written there, and how it is compared."""
