"""Integrations, one file for each library; no other module of the package imports them."""
