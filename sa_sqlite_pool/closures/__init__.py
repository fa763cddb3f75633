"""Closures: functions that run as a whole transaction in the connection's thread."""
