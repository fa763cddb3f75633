"""Frozen values that say what a database, its engines, lines and log have done and do now."""
