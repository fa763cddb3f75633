"""Copies of a database while it is used, and their way back."""
