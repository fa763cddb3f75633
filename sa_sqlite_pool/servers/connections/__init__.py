"""Connections to servers: to which, how far it is, and which are down."""
