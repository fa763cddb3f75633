"""Reads right after writes, on lagging replicas: the number of stale reads, and the cost."""
