"""Closures: functions that run as whole transactions in the connection's thread."""
