"""Prepared reads: compiled once, and executed with as little overhead as possible."""
