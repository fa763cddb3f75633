"""Turns, permits and snapshots: which task may read or write now. Unaware of engines and pools."""
