"""Connections to servers: which server, its position, and which servers are down."""
