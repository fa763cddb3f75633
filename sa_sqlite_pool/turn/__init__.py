"""Turns, permits and snapshots: which task may write or read now. Knows no engine and no pool."""
