"""Connections to servers: by which driver, to which server, and how long one may be silent."""
