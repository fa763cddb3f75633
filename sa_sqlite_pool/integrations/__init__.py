"""Integrations, one file or folder for each library; no other part of the package imports them."""
