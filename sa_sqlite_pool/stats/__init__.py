"""Frozen statistics of a database, its engines, lines and log: counters and current state."""
