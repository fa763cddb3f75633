"""Reads right after writes, on replicas that lag: how many are stale, and what it costs."""
